"""Limits the overhead of recording by sampling expensive statistics less often.

Pure arithmetic on times that others measure: no clock, no torch.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["MAX_SAMPLING_INTERVAL", "OverheadGovernor"]

SMOOTHING = 0.1  # weight of the newest batch in the averages, which span about ten batches
DECISION_INTERVAL = 20  # batches between two decisions, so that the averages reflect the last one
RELAX_BELOW = 0.7  # of the budget: below it a statistic may be sampled more often again
MAX_SAMPLING_INTERVAL = 64  # batches


class OverheadGovernor:
    """Decides on which batches each statistic is sampled.

    A statistic costs time only on the batches on which it is sampled. While the total exceeds the
    budget, the interval of the most expensive statistic per batch is doubled; once there is room
    for it, the longest interval is halved.

    Args:
        budget: share of the duration of a step, 0.03 for 3 %. None: sample everything always.
        protected: statistics that are sampled on every batch, whatever they cost.

    Attributes:
        sampling_intervals: statistic -> n if it is sampled on every n-th batch; 1 if missing.

    Raises:
        ValueError: ``budget`` is not in (0, 1].
    """

    def __init__(self, budget: float | None, protected: Iterable[str] = ()) -> None:
        if budget is not None and not 0 < budget <= 1:
            raise ValueError(
                f"max_overhead is a share of a step in (0, 1], such as 0.03 for 3 %; got {budget}"
            )
        self.budget = budget
        self.sampling_intervals: dict[str, int] = {}
        self._protected = frozenset(protected)
        self._batch = -1
        self._step = 0.0  # seconds of a batch without our overhead
        self._fixed = 0.0  # seconds of overhead that does not depend on the statistics
        self._costs: dict[str, float] = {}  # seconds per statistic, of a batch that samples it
        self._selected: frozenset[str] | None = None  # that the costs count of; None: all
        self._batches_since_decision = 0
        self._has_decided = False

    @property
    def needs_every_batch(self) -> bool:
        """Whether the times of all batches are needed, because decisions are pending."""
        if not self._has_decided:
            return True
        is_exceeded = self.budget is not None and self.overhead > self.budget
        return is_exceeded and bool(self._expensive())

    def select_due(self, statistics: Iterable[str]) -> list[str]:
        """Return which of ``statistics`` to sample on the next batch. Call once per batch.

        The costs of others do not count until they are among ``statistics`` again.
        """
        statistics = list(statistics)
        self._batch, self._selected = self._batch + 1, frozenset(statistics)
        # Offset by position, so that not all of them are due on the same batch.
        return [
            name
            for position, name in enumerate(statistics)
            if (self._batch + position) % self.sampling_intervals.get(name, 1) == 0
        ]

    def update(
        self,
        step_seconds: float,
        seconds_by_statistic: dict[str, float],
        fixed_seconds: float = 0.0,
    ) -> bool:
        """Add the times of a batch to the averages, and adapt the intervals from time to time.

        Args:
            step_seconds: seconds of the whole batch, our overhead included.
            seconds_by_statistic: seconds of it spent on each statistic that was sampled.
            fixed_seconds: seconds of it spent independently of the statistics.

        Returns:
            Whether `sampling_intervals` has changed.
        """
        without_us = step_seconds - sum(seconds_by_statistic.values()) - fixed_seconds
        self._step = _update_average(self._step, max(without_us, 0.0))
        self._fixed = _update_average(self._fixed, fixed_seconds)
        for name, seconds in seconds_by_statistic.items():
            self._costs[name] = _update_average(self._costs.get(name, 0.0), seconds)
        self._batches_since_decision += 1
        if self._batches_since_decision < DECISION_INTERVAL:
            return False
        self._batches_since_decision, self._has_decided = 0, True
        if self.budget is None:
            return False
        if self.overhead > self.budget:
            return self._lengthen_most_expensive()
        return self._shorten_longest(self.budget)

    @property
    def overhead(self) -> float:
        """The current overhead as a share of a step without it."""
        spent = self._fixed + sum(map(self._cost_per_batch, self._counted()))
        return spent / self._step if self._step > 0 else 0.0

    def _counted(self) -> list[str]:
        """Return the statistics whose cost is known and counts."""
        selected = self._costs.keys() if self._selected is None else self._selected
        return [name for name in self._costs if name in selected]

    def _cost_per_batch(self, name: str) -> float:
        """Return the seconds per batch, averaged over the batches that do not sample it."""
        return self._costs[name] / self.sampling_intervals.get(name, 1)

    def _expensive(self) -> list[str]:
        """Return the statistics that may be sampled less often."""
        return [
            name
            for name in self._counted()
            if name not in self._protected
            and self.sampling_intervals.get(name, 1) < MAX_SAMPLING_INTERVAL
        ]

    def _lengthen_most_expensive(self) -> bool:
        candidates = self._expensive()
        if not candidates:
            return False
        name = max(candidates, key=self._cost_per_batch)
        self.sampling_intervals[name] = 2 * self.sampling_intervals.get(name, 1)
        return True

    def _shorten_longest(self, budget: float) -> bool:
        candidates = [name for name in self._counted() if name in self.sampling_intervals]
        for name in sorted(candidates, key=lambda name: -self.sampling_intervals[name]):
            # Half the interval adds the current cost once more.
            if self.overhead + self._cost_per_batch(name) / self._step <= RELAX_BELOW * budget:
                interval = self.sampling_intervals.pop(name) // 2
                if interval > 1:
                    self.sampling_intervals[name] = interval
                return True
        return False


def _update_average(average: float, value: float) -> float:
    return value if average == 0 else average + SMOOTHING * (value - average)
