from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from revacnn_lightning.protocol.messages import Message, Snapshot, Structure
from revacnn_lightning.runtime.batch import Progress, TrainingBatch
from revacnn_lightning.runtime.batch_publisher import BatchPublisher
from revacnn_lightning.runtime.snapshot_merger import SnapshotMerger
from revacnn_lightning.telemetry import Recorder

IMAGES = torch.ones(2, 1, 8, 8)


class TwoPaths(nn.Module):
    """Two convolutions; a forward calls those of `names`."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1)
        self.names = ["first", "second"]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        for name in self.names:
            images = getattr(self, name)(images)
        return images


class SmallRun:
    """A run of a small network; `published` holds all published messages."""

    def __init__(self, make_merger: Callable[[], SnapshotMerger] | None = None, **options: Any):
        torch.manual_seed(0)
        self.model = TwoPaths()
        self.recorder = Recorder(self.model)
        self.recorder.attach()
        self.published: list[Message | str] = []
        self.version, self._order = 0, []
        merger = None if make_merger is None else make_merger()
        self.batches = BatchPublisher(
            "run",
            self.recorder,
            self.published.append,
            self._update_structure,
            None,
            merger,
            **options,
        )
        self.step = 0

    def _update_structure(self) -> int:
        if self._order != self.recorder.layers:
            self.version, self._order = self.version + 1, self.recorder.layers
            self.published.append(f"structure {self.version}")
        return self.version

    def train_batch(self, *, is_needed: bool = True, batches_per_epoch: int = 0) -> None:
        progress = Progress(self.step, 0, self.step, batches_per_epoch)
        self.batches.begin(TrainingBatch(progress), is_needed=is_needed)
        loss = self.model(IMAGES * (1 + self.step)).square().mean()
        loss.backward()
        self.model.zero_grad()
        self.batches.end(
            progress, loss=loss, get_learning_rates=list, get_metrics=dict, loss_factor=1.0
        )
        self.step += 1

    @property
    def snapshots(self) -> list[Snapshot]:
        return [each for each in self.published if isinstance(each, Snapshot)]

    @property
    def steps(self) -> list[int]:
        return [snapshot.step for snapshot in self.snapshots]


@pytest.fixture
def make_run() -> Iterator[Callable[..., SmallRun]]:
    runs: list[SmallRun] = []

    def make(*args: Any, **options: Any) -> SmallRun:
        runs.append(SmallRun(*args, **options))
        return runs[-1]

    yield make
    for run in runs:
        run.recorder.detach()


def test_batches_wait_for_the_next_ones_and_lose_nothing(make_run: Callable[..., SmallRun]):
    waiting, immediate = make_run(max_delay=1e9), make_run(max_delay=0.0)
    for run in (waiting, immediate):
        for _ in range(4):
            run.train_batch()
    assert immediate.steps == [0, 1, 2, 3]
    assert waiting.steps == [0]
    waiting.batches.publish_pending()
    assert waiting.steps == immediate.steps
    for found, expected in zip(waiting.snapshots, immediate.snapshots, strict=True):
        np.testing.assert_array_equal(found.values, expected.values)
        assert (found.loss, found.version) == (expected.loss, expected.version)
    times = [snapshot.time for snapshot in waiting.snapshots]
    assert times == sorted(set(times)), "the time is that of the batch, not of its message"


def test_the_last_batch_of_an_epoch_does_not_wait(make_run: Callable[..., SmallRun]):
    run = make_run(max_delay=1e9)
    for _ in range(4):
        run.train_batch(batches_per_epoch=4)
    assert run.steps == [0, 1, 2, 3]


def test_batches_are_published_when_the_next_one_is_not_recorded(
    make_run: Callable[..., SmallRun],
):
    run = make_run(max_delay=1e9)
    run.train_batch()
    run.train_batch()
    assert run.steps == [0]
    run.train_batch(is_needed=False)
    assert run.steps == [0, 1]


def test_batches_before_another_order_of_layers_come_before_its_structure(
    make_run: Callable[..., SmallRun],
):
    run = make_run(max_delay=1e9)
    run.model.names = ["first"]
    for _ in range(3):
        run.train_batch()
    run.model.names = ["second", "first"]
    for _ in range(4):
        run.train_batch()
    run.batches.flush()
    assert run.steps == list(range(7))
    seen, version = [], ""
    for message in run.published:
        if isinstance(message, Snapshot):
            seen.append(f"structure {message.version}" == version)
        else:
            assert not isinstance(message, Structure)
            version = str(message)
    assert run.version == 2
    assert all(seen), "each batch follows the structure that it belongs to"


def test_batches_that_are_merged_wait_too(make_run: Callable[..., SmallRun]):
    run = make_run(lambda: SnapshotMerger(1e9), max_delay=1e9)
    for _ in range(5):
        run.train_batch()
    run.batches.publish_pending()
    assert [(one.first_step, one.step, one.batch_count) for one in run.snapshots] == [
        (None, 0, 1), (1, 4, 4),
    ]  # fmt: skip
