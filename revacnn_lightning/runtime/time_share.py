"""The share of the recent time that some activity has taken."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["RecentTimeShare"]

AVERAGING_SECONDS = 20.0


class RecentTimeShare:
    """Computes which share of about the last `AVERAGING_SECONDS` was spent on one activity.

    The caller measures how long each piece of the activity took, and adds it.

    Args:
        clock: returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._spent = 0.0  # a decaying sum of seconds
        self._spent_at = clock()

    def add(self, seconds: float) -> float:
        """Add seconds that were just spent; return the share of the recent time, at most 1."""
        now = self._clock()
        elapsed, self._spent_at = now - self._spent_at, now
        self._spent = self._spent * math.exp(-elapsed / AVERAGING_SECONDS) + seconds
        return min(1.0, self._spent / AVERAGING_SECONDS)
