"""The statistics that each rank records, summed up over all of them without waiting.

Rank 0 says in an exchange from which batch on all ranks record, while a viewer is attached, and
before which batches they start to sum up what they have recorded since the last time. The sum
arrives while the next batches are trained.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from revacnn_lightning.runtime.ranks.sharing import (
    CanonicalColumnOrder,
    StatisticsInstruction,
    statistics_from_bits,
    statistics_to_bits,
)
from revacnn_lightning.runtime.ranks.side_group import SideProcessGroup
from revacnn_lightning.runtime.ranks.statistic_sums import RankMeans, StatisticSums

__all__ = ["LayerValuesByRank", "PendingReduction", "RankStatistics"]

SECONDS_BETWEEN = 0.1  # between two sums, which the page shows


@dataclass(frozen=True)
class LayerValuesByRank:
    """What each rank has recorded of one layer.

    Attributes:
        statistics: the names of the S statistics.
        values: float32 (ranks, S, filters): means over the same batches.
        losses: the mean loss of each rank; None if unknown.
        checksums: of each rank, a checksum of the layer's weights and optimizer state.
        nonfinite_weights: of each rank, how many weights of the layer are infinite or NaN.
    """

    statistics: list[str]
    values: np.ndarray
    losses: list[float | None]
    checksums: list[int]
    nonfinite_weights: list[int]


@dataclass
class PendingReduction:
    """An all-reduce of the recorded statistics that was started and may not be complete.

    Attributes:
        statistics: the names of the S statistics.
        order: the order of the columns of this rank; None if it has recorded other filters than
            rank 0.
        template: what rank 0 knows of the batches.
        layer: in rank 0, the layer whose values each rank sends; "" for none.
    """

    statistics: list[str]
    order: CanonicalColumnOrder | None
    template: Any
    layer: str
    _works: list[Any]
    _sums: Tensor
    _maxima: Tensor
    _gathered: list[Tensor]
    _facts: list[Tensor]

    @property
    def is_complete(self) -> bool:
        """Whether the values have arrived."""
        return all(work.is_completed() for work in self._works)

    def means(self) -> RankMeans:
        """Return the means over all ranks, in the order of the columns of this rank."""
        found = StatisticSums.means_of(self._sums, self._maxima, len(self.statistics))
        if self.order is not None:
            for table in (found.values, found.maxima):
                table[:, self.order.indices] = table.copy()
        return found

    def layer_values_by_rank(self) -> LayerValuesByRank | None:
        """Return the values of one layer in each rank; None if they were not requested."""
        if not self._gathered:
            return None
        tables = [each.numpy() for each in self._gathered]
        rows = len(self.statistics)
        return LayerValuesByRank(
            self.statistics,
            np.stack([table[:-2].reshape(rows, -1) for table in tables]),
            [float(table[-2] / table[-1]) if table[-1] else None for table in tables],
            [int(facts[0]) for facts in self._facts],
            [int(facts[1]) for facts in self._facts],
        )


class RankStatistics:
    """Sums up the statistics of one rank over its batches, then over all ranks.

    Args:
        group: the process group of all ranks.
        clock: returns monotonic seconds.

    Attributes:
        recorded: the statistics that this rank records now; empty: it records none.
        take_template: is called when a sum begins; in rank 0, returns what it knows of the batches.
        get_facts: returns the checksum of weights and optimizer state, and how many weights are
            infinite or NaN.
        wanted_layer: in rank 0, the layer whose values each rank sends; "" for none.
    """

    def __init__(
        self, group: SideProcessGroup, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._group = group
        self._clock = clock
        self.recorded: list[str] = []
        self.take_template: Callable[[], Any] = lambda: None
        self.get_facts: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self.wanted_layer = ""
        self._sent_layer = ""  # of the sum that is exchanged to begin
        self._order = CanonicalColumnOrder((), ())
        self._sums: StatisticSums | None = None
        self._reductions: deque[PendingReduction] = deque()
        self._next_time = 0.0

    # ------------------------------------------------------------------ all ranks, in step

    def apply_instruction(self, instruction: StatisticsInstruction) -> None:
        """Do what rank 0 has exchanged: begin a sum, and record from this batch on.

        Raises:
            LostRankError: another rank has ended.
        """
        if instruction.is_due:
            self._reduce(instruction)
        names = statistics_from_bits(instruction.statistics)
        if names != self.recorded:
            self.recorded, self._sums = names, None

    def _reduce(self, instruction: StatisticsInstruction) -> None:
        sums, self._sums = self._sums, None
        names, order = self.recorded, self._order
        is_same = (order.columns, order.checksum) == (instruction.columns, instruction.checksum)
        is_valid = is_same and sums is not None and sums.batches > 0
        if sums is None or not is_valid:
            sums = StatisticSums(len(names), instruction.columns, is_valid=False)
        added, maxima = sums.to_tensors()
        works = [self._group.start_sum(added), self._group.start_maximum(maxima)]
        gathered: list[Tensor] = []
        facts: list[Tensor] = []
        if instruction.width:
            means = sums.means(instruction.first_column, instruction.width)
            own = np.append(means.ravel(), sums.losses)
            work, gathered = self._group.start_gather(torch.from_numpy(own))
            another, facts = self._group.start_gather(torch.tensor(self.get_facts()))
            works += [work, another]
        self._reductions.append(
            PendingReduction(
                names, order if is_same else None, self.take_template(), self._sent_layer, works,
                added, maxima, gathered, facts,
            )
        )  # fmt: skip

    # ------------------------------------------------------------------ this rank

    def add(
        self,
        layers: Sequence[str],
        widths: Sequence[int],
        names: Sequence[str],
        values: np.ndarray,
        loss: float | None,
        *,
        nonfinite: bool,
    ) -> None:
        """Add the recording of a batch; see `Recording`."""
        if list(layers) != self._order.layers or list(widths) != self._order.widths:
            self._order, self._sums = CanonicalColumnOrder(layers, widths), None
        if self._sums is None:
            self._sums = StatisticSums(len(self.recorded), self._order.columns)
        rows = StatisticSums.select_rows(names, values, self.recorded)
        self._sums.add(rows[:, self._order.indices], loss, nonfinite=nonfinite)

    def next_instruction(
        self, statistics: Sequence[str], *, is_stopping: bool
    ) -> StatisticsInstruction:
        """Return what rank 0 exchanges next.

        Args:
            statistics: the statistics that all ranks record for the viewers; empty without a
                viewer.
            is_stopping: whether the ranks stop at the next exchange: what they have recorded is
                summed up before.
        """
        if not statistics:
            return StatisticsInstruction()
        is_due = bool(self.recorded) and (is_stopping or self._clock() >= self._next_time)
        if is_due:
            self._next_time = self._clock() + SECONDS_BETWEEN
        order = self._order
        first, count = order.slice_of(self.wanted_layer) if is_due else (0, 0)
        if is_due:
            self._sent_layer, self.wanted_layer = self.wanted_layer if count else "", ""
        return StatisticsInstruction(
            statistics_to_bits(statistics), int(is_due), order.columns, order.checksum, first, count
        )

    def completed(self) -> list[PendingReduction]:
        """Return the sums that have arrived, oldest first, without waiting."""
        found = []
        while self._reductions and self._reductions[0].is_complete:
            found.append(self._reductions.popleft())
        return found

    def discard_completed(self) -> None:
        """Discard the sums that have arrived: in other ranks than 0, nobody needs them."""
        self.completed()

    def stop(self) -> None:
        """Record nothing from now on: the ranks cannot exchange anything any more."""
        self.recorded, self._sums = [], None
        self._reductions.clear()
