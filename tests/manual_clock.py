"""A clock for tests: time passes only when the test says so."""

from __future__ import annotations

__all__ = ["ManualClock"]


class ManualClock:
    """Returns ``now``, in seconds.

    Args:
        seconds_per_reading: that pass whenever the clock is read, as between two lines of code.
    """

    def __init__(self, now: float = 100.0, seconds_per_reading: float = 0.0) -> None:
        self.now = now
        self._seconds_per_reading = seconds_per_reading

    def __call__(self) -> float:
        self.now += self._seconds_per_reading
        return self.now
