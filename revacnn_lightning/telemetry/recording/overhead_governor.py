"""Keeps what we cost a training step below a share of it, by thinning out the dear statistics.

Pure arithmetic on times that others measure: no clock, no torch.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["OverheadGovernor"]

WEIGHT = 0.1  # of the newest batch in the averages: about the last ten batches count
PATIENCE = 20  # batches between two decisions, so that a decision shows in the averages
SLACK = 0.7  # of the budget; below it something may be gathered more often again
MAX_EVERY = 64


class OverheadGovernor:
    """Decides on which batches each statistic is gathered.

    A statistic costs its share only on the batches on which it is gathered. When all together cost
    more than the budget, the one that costs most per batch is gathered half as often; when there
    is room for it, the one gathered most seldom twice as often.

    Args:
        budget: share of the time of a step, 0.03 for 3 %. None: everything, always.
        protected: statistics that are gathered on every batch, whatever they cost.

    Attributes:
        every: statistic -> it is gathered on every n-th batch. 1 where it is missing.
    """

    def __init__(self, budget: float | None, protected: Iterable[str] = ()) -> None:
        if budget is not None and not 0 < budget <= 1:
            raise ValueError(f"max_overhead {budget} is no share of a step; 0.03 means 3 %")
        self.budget = budget
        self.every: dict[str, int] = {}
        self._protected = frozenset(protected)
        self._batch = -1
        self._step = 0.0  # seconds, without us
        self._fixed = 0.0  # seconds that we cost anyway
        self._costs: dict[str, float] = {}  # seconds of a batch on which it is gathered
        self._since = 0  # batches since the last decision

    def due(self, statistics: Iterable[str]) -> list[str]:
        """Those of ``statistics`` to gather on the next batch. Call once per batch."""
        self._batch += 1
        # Spread over the batches, so that not all come together on one of them.
        return [
            name
            for place, name in enumerate(statistics)
            if (self._batch + place) % self.every.get(name, 1) == 0
        ]

    def update(self, step: float, costs: dict[str, float], fixed: float = 0.0) -> bool:
        """Take note of a batch, and decide.

        Args:
            step: seconds the batch took, with all we did.
            costs: seconds of it spent on each statistic that was gathered.
            fixed: seconds of it that we spent whatever is gathered.

        Returns:
            Whether `every` has changed.
        """
        own = step - sum(costs.values()) - fixed
        self._step = _average(self._step, max(own, 0.0))
        self._fixed = _average(self._fixed, fixed)
        for name, seconds in costs.items():
            self._costs[name] = _average(self._costs.get(name, 0.0), seconds)
        self._since += 1
        if self.budget is None or self._since < PATIENCE:
            return False
        self._since = 0
        return self._decide(self.budget)

    @property
    def overhead(self) -> float:
        """What we cost now, as a share of the step without us."""
        spent = self._fixed + sum(map(self._spent, self._costs))
        return spent / self._step if self._step > 0 else 0.0

    def _spent(self, name: str) -> float:
        """Seconds per batch, on average over the batches on which it is not gathered."""
        return self._costs[name] / self.every.get(name, 1)

    def _decide(self, budget: float) -> bool:
        if self.overhead > budget:
            dearest = max(
                (
                    name
                    for name in self._costs
                    if name not in self._protected and self.every.get(name, 1) < MAX_EVERY
                ),
                key=self._spent,
                default=None,
            )
            return dearest is not None and self._set(dearest, 2 * self.every.get(dearest, 1))
        thinned = [name for name in self.every if name in self._costs]
        for name in sorted(thinned, key=lambda name: -self.every[name]):
            # Twice as often costs once more what it costs now.
            if self.overhead + self._spent(name) / self._step <= SLACK * budget:
                return self._set(name, self.every[name] // 2)
        return False

    def _set(self, name: str, every: int) -> bool:
        if every == 1:
            del self.every[name]
        else:
            self.every[name] = every
        return True


def _average(average: float, value: float) -> float:
    return value if average == 0 else average + WEIGHT * (value - average)
