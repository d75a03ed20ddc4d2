"""Which statistics each batch samples, within the overhead budget."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any

from revacnn_lightning.telemetry.recording.batch_state import BatchState
from revacnn_lightning.telemetry.recording.overhead_costs import cost_per_statistic
from revacnn_lightning.telemetry.recording.overhead_governor import OverheadGovernor
from revacnn_lightning.telemetry.recording.timing import Stopwatch
from revacnn_lightning.telemetry.statistics import (
    ALWAYS_RECORDED,
    INSPECTION_STATISTICS,
    OPTIMIZER_STATISTICS,
    REQUESTED_STATISTICS,
    STATISTICS,
)

__all__ = ["CLASSES", "TOP_IMAGES", "SamplingSchedule"]

log = logging.getLogger(__name__)

ALL = (*STATISTICS, *REQUESTED_STATISTICS)  # in the order of the rows of a recording
# These have a cost and an interval like a statistic.
TOP_IMAGES, CLASSES = "top_images", "classes"


class SamplingSchedule:
    """Decides which statistics a batch samples, from what is requested and what it costs.

    Args:
        statistics: those requested of all layers.
        max_overhead: share of a step that recording may cost; None: no limit.
        batch: the batch under way; its ``statistics`` are set here.
        stopwatch: measures the times of the parts of each batch.

    Attributes:
        external_overhead: other overhead of ours, as a share of a step; it counts towards the
            limit.
        inspected: layers that also sample `INSPECTION_STATISTICS`.
    """

    def __init__(
        self,
        statistics: Sequence[str],
        max_overhead: float | None,
        batch: BatchState,
        stopwatch: Stopwatch,
    ) -> None:
        self.external_overhead = 0.0
        self.inspected: frozenset[str] = frozenset()
        self._always_requested = frozenset(statistics)
        self._looked_at = self._required = frozenset[str]()
        self._requested: list[str] = []
        self.request(frozenset())
        self._samples_others = False
        self._batch = batch
        self._stopwatch = stopwatch
        self._governor = OverheadGovernor(max_overhead, ALWAYS_RECORDED)

    @property
    def names(self) -> list[str]:
        """The statistics recorded now, of all or of some layers, in the order of `STATISTICS`."""
        if not self.inspected:
            return self._requested
        return [name for name in ALL if name in {*self._requested, *INSPECTION_STATISTICS}]

    def request(self, names: frozenset[str]) -> None:
        """Record these statistics of all layers, besides those of the run, until the next call."""
        self._looked_at = names
        self._update_requested()

    def require(self, names: frozenset[str]) -> None:
        """Sample these statistics of all layers on every batch until the next call.

        What they cost is not limited, and does not count as overhead: the run itself needs them.
        """
        self._required = names
        self._update_requested()

    def _update_requested(self) -> None:
        known = self._always_requested | self._looked_at | self._required
        self._requested = [name for name in ALL if name in known]

    @property
    def overhead(self) -> float:
        """The overhead of the recorded batches as a share of a step; 0 before the first."""
        return self._governor.overhead

    @property
    def needs_every_batch(self) -> bool:
        """Whether the next batch must be timed, because of pending decisions or an inspection."""
        is_inspected = bool(self.inspected) or self._samples_others or bool(self._looked_at)
        return is_inspected or self._governor.needs_every_batch

    @property
    def intervals(self) -> dict[str, int]:
        """Statistic -> n if it is sampled on every n-th batch, for each of `names`."""
        known = self._governor.sampling_intervals
        return {n: 1 if n in self._required else known.get(n, 1) for n in self.names}

    def begin_batch(
        self, inspected_layers: frozenset[str], others: Collection[str] = ()
    ) -> frozenset[str]:
        """Select what the next batch samples, of the statistics and of ``others``, and return it.

        Optimizer statistics with an interval wait for the next optimizer step: they enter the
        batch's ``statistics`` with `add`.
        """
        self.inspected = inspected_layers
        limited = [name for name in self.names if name not in self._required]
        due = self._required | frozenset(self._governor.select_due([*limited, *others]))
        self._samples_others = bool(others)
        waiting = OPTIMIZER_STATISTICS & self._governor.sampling_intervals.keys()
        self._sample(due - waiting)
        self._batch.inspected = inspected_layers
        return due

    def add_optimizer_statistics(self, statistics: frozenset[str]) -> None:
        """Add optimizer statistics to this batch, which has made an optimizer step."""
        if not statistics <= self._batch.statistics:
            self._sample(self._batch.statistics | statistics)

    def _sample(self, statistics: frozenset[str]) -> None:
        self._batch.statistics = statistics
        self._batch.of_all_layers = statistics.intersection(self._requested)

    def end_batch(self) -> None:
        """Adapt the intervals to the times of the batches that have completed."""
        for seconds in self._stopwatch.pop_timings():
            self._update(seconds)

    def _update(self, seconds: dict[str, Any]) -> None:
        step, fixed = seconds.pop("step"), seconds.pop("fixed", 0.0)
        costs = cost_per_statistic(seconds, self._batch.statistics)
        if self._governor.update(step, costs, fixed + self.external_overhead * step):
            log.info(
                "Recording costs %.1f %% of a step; sampling intervals in batches: %s",
                100 * self._governor.overhead,
                self._governor.sampling_intervals or "1 for all statistics",
            )
