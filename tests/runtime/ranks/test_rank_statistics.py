"""The statistics of all ranks, in one process: a simulated group adds up what its ranks pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from revacnn_lightning.protocol.rank_messages import RankValues
from revacnn_lightning.protocol.snapshot import Snapshot
from revacnn_lightning.runtime.rank_comparison import RankValuesCollector
from revacnn_lightning.runtime.rank_merger import RankSnapshotMerger
from revacnn_lightning.runtime.ranks.rank_statistics import RankStatistics
from revacnn_lightning.runtime.ranks.sharing import (
    StatisticsInstruction,
    statistics_from_bits,
    statistics_to_bits,
)

NAMES = ["gradient", "activation"]
NAN = float("nan")


class Work:
    done = False

    def is_completed(self) -> bool:
        return self.done


class Network:
    """Performs a collective once all of its ranks have started it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.started: dict[int, list[tuple[Any, Callable[[list[Tensor]], None]]]] = {}

    def start(self, index: int, own: Tensor, finish: Callable[[list[Tensor]], None]) -> Work:
        work = Work()
        self.started.setdefault(index, []).append((own.clone(), finish))
        everyone = self.started[index]
        works.setdefault(id(everyone), []).append(work)
        if len(everyone) == self.size:
            for _, each in everyone:
                each([one for one, _ in everyone])
            for one in works.pop(id(everyone)):
                one.done = True
        return work


works: dict[int, list[Work]] = {}


class Group:
    """One rank's end of a network."""

    def __init__(self, network: Network) -> None:
        self.network, self.count, self.size = network, 0, network.size

    def _start(self, own: Tensor, finish: Callable[[list[Tensor]], None]) -> Work:
        self.count += 1
        return self.network.start(self.count, own, finish)

    def start_sum(self, values: Tensor) -> Work:
        return self._start(values, lambda all_: values.copy_(torch.stack(all_).sum(0)))

    def start_maximum(self, values: Tensor) -> Work:
        return self._start(values, lambda all_: values.copy_(torch.stack(all_).amax(0)))

    def start_gather(self, own: Tensor) -> tuple[Work, list[Tensor]]:
        found = [torch.zeros_like(own) for _ in range(self.size)]

        def finish(all_: list[Tensor]) -> None:
            for one, other in zip(found, all_, strict=True):
                one.copy_(other)

        return self._start(own, finish), found


@pytest.fixture
def ranks() -> list[RankStatistics]:
    network = Network(2)
    return [RankStatistics(Group(network), lambda: 0.0) for _ in range(2)]  # type: ignore[arg-type]


def begin(ranks: list[RankStatistics]) -> None:
    for rank in ranks:
        rank.apply_instruction(StatisticsInstruction(statistics_to_bits(NAMES)))


def record(
    rank: RankStatistics, layers: list[str], values: list[list[float]], loss: float | None = 1.0
) -> None:
    widths = [2 if layer == "b" else 1 for layer in layers]
    rank.add(layers, widths, NAMES, np.array(values, np.float32), loss, nonfinite=False)


def reduce(ranks: list[RankStatistics]) -> Any:
    sharing = ranks[0].next_instruction(NAMES, is_stopping=True)
    for rank in ranks:
        assert not ranks[0].completed()  # the last one has not begun
        rank.apply_instruction(sharing)
    [found] = ranks[0].completed()
    return found


def test_names_survive_as_bits():
    assert statistics_from_bits(statistics_to_bits(["price", "activation"])) == [
        "activation",
        "price",
    ]


def test_means_are_those_over_batches_and_ranks_whatever_the_order_of_the_layers(
    ranks: list[RankStatistics],
):
    begin(ranks)
    # Columns of rank 0: b0 b1 a; of rank 1: a b0 b1.
    record(ranks[0], ["b", "a"], [[1, 2, 3], [NAN, 4, 0]], loss=1.0)
    record(ranks[0], ["b", "a"], [[3, 4, 5], [NAN, 6, 0]], loss=2.0)
    record(ranks[1], ["a", "b"], [[10, 20, 30], [NAN, 8, NAN]], loss=6.0)
    means = reduce(ranks).means()
    np.testing.assert_allclose(means.values, [[8, 12, 6], [8, 5, 0]])
    np.testing.assert_allclose(means.maxima, [[20, 30, 10], [8, 6, 0]])
    assert (means.loss, means.max_loss, means.ranks) == (3.0, 6.0, 2)


def test_a_rank_with_other_layers_adds_nothing(ranks: list[RankStatistics]):
    begin(ranks)
    record(ranks[0], ["b", "a"], [[1, 2, 3], [4, 5, 6]])
    record(ranks[1], ["a"], [[100], [100]])
    means = reduce(ranks).means()
    np.testing.assert_allclose(means.values, [[1, 2, 3], [4, 5, 6]])
    assert means.ranks == 1


def test_a_loss_that_is_not_a_number_stays_one(ranks: list[RankStatistics]):
    begin(ranks)
    record(ranks[0], ["a"], [[1], [1]], loss=1.0)
    record(ranks[1], ["a"], [[1], [1]], loss=NAN)
    means = reduce(ranks).means()
    assert np.isnan(means.loss)
    assert np.isnan(means.max_loss)


def test_nothing_is_shared_without_a_viewer(ranks: list[RankStatistics]):
    assert ranks[0].next_instruction([], is_stopping=True) == StatisticsInstruction()
    begin(ranks)
    for rank in ranks:
        rank.apply_instruction(StatisticsInstruction())
    assert [rank.recorded for rank in ranks] == [[], []]


def snapshot(step: int, values: list[list[float]], version: int = 0) -> Snapshot:
    return Snapshot(
        run="run", version=version, step=step, epoch=0, batch_index=step, batches_per_epoch=0,
        max_epochs=0, time=0.0, loss=1.0, learning_rates=[], batches_per_second=1.0,
        statistics=[*NAMES, "weight_norm"], values=np.array(values, np.float32),
    )  # fmt: skip


def test_a_snapshot_is_published_once_all_ranks_have_added_theirs(ranks: list[RankStatistics]):
    compared: list[Snapshot] = []
    merger = RankSnapshotMerger(
        ranks[0], lambda: (["a"], [1]), on_reduction=lambda _, shown: compared.append(shown)
    )
    assert [one.ranks for one in merger.add(snapshot(0, [[1], [1], [7]]))] == [1]  # no viewer
    begin(ranks)
    for step in (1, 2):
        assert list(merger.add(snapshot(step, [[1], [2], [7]]))) == []
        record(ranks[1], ["a"], [[5], [4]])
    sharing = ranks[0].next_instruction(NAMES, is_stopping=True)
    ranks[0].apply_instruction(sharing)
    assert list(merger.add(snapshot(3, [[9], [9], [9]]))) == []  # rank 1 is slower
    ranks[1].apply_instruction(sharing)
    [shown] = merger.flush()
    assert (shown.step, shown.first_step, shown.batch_count, shown.ranks) == (2, 1, 2, 2)
    np.testing.assert_allclose(shown.values, [[3], [3], [7]])
    assert compared == [shown]
    [rest] = merger.finish()
    assert (rest.step, rest.ranks) == (3, 1)


def test_which_rank_differs_is_known_on_demand(ranks: list[RankStatistics]):
    class Recorder:
        layers = ("a", "b")

    comparison = RankValuesCollector(ranks[0], Recorder(), lambda: 0.0)  # type: ignore[arg-type]
    ranks[0].wanted_layer = "b"
    for rank, facts in zip(ranks, [(5, 0), (6, 3)], strict=True):
        rank.get_facts = lambda facts=facts: facts
    begin(ranks)
    record(ranks[0], ["a", "b"], [[0, 1, 2], [0, 1, 2]])
    record(ranks[1], ["a", "b"], [[0, 3, 4], [0, 3, 0]], loss=NAN)
    comparison.receive(reduce(ranks), snapshot(4, [[0] * 3] * 3))
    [found] = comparison._arrived
    assert isinstance(found, RankValues)
    assert (found.layer, found.step, found.in_step) == ("b", 4, [True, False])
    np.testing.assert_allclose(found.values, [[[1, 2], [1, 2]], [[3, 4], [3, 0]]])
    assert found.differences() == {
        1: [
            "out of step: its weights are not those of rank 0",
            "3 weights are infinite or NaN",
            "its loss is infinite or NaN",
            "silent in this rank only: 1",
        ]
    }


def test_the_loss_of_no_batch_is_unknown(ranks: list[RankStatistics]):
    class Recorder:
        layers = ("a", "b")

    comparison = RankValuesCollector(ranks[0], Recorder(), lambda: 0.0)  # type: ignore[arg-type]
    ranks[0].wanted_layer = "b"
    begin(ranks)
    record(ranks[0], ["a", "b"], [[0, 1, 2], [0, 1, 2]], loss=0.5)
    comparison.receive(reduce(ranks), snapshot(4, [[0] * 3] * 3))
    [found] = comparison._arrived
    assert found.losses == [0.5, None]
    assert found.differences() == {}
