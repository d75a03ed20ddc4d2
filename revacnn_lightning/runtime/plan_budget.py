"""How much time plans may take from the training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from revacnn_lightning.protocol.rate_limit import TokenBucket

__all__ = ["PlanTimeBudget"]

PLAN_SHARE = 0.006  # of the time; with the receiving of a flood of requests below 2 %
PLAN_SECONDS = 1.0  # in a row, for a person who stages many changes
MAX_SECONDS_PER_PLAN = 0.25  # that count, so that the next plan of a huge network can be awaited


class PlanTimeBudget:
    """Limits the share of the time that plans take, however many are requested.

    A plan takes a few milliseconds, and a client may request them as fast as it can.

    Args:
        clock: returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._seconds = TokenBucket(PLAN_SHARE, PLAN_SECONDS, clock)

    @property
    def is_exhausted(self) -> bool:
        """Whether the next plan must wait."""
        return self._seconds.is_empty

    @contextmanager
    def count_time_inside(self) -> Iterator[None]:
        """Count the time of a plan that is made in this context."""
        started = self._clock()
        try:
            yield
        finally:
            self._seconds.spend(min(self._clock() - started, MAX_SECONDS_PER_PLAN))
