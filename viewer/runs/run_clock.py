"""When each batch of a run was trained: its epoch, and the seconds since the first one."""

from __future__ import annotations

import numpy as np

__all__ = ["RunClock"]

CAPACITY = 2048  # moments; more than a chart has pixels


class RunClock:
    """Converts steps to epochs and seconds, by interpolation between recorded moments.

    When it is full, every other moment is dropped and half as many are recorded, so that it always
    covers the whole run.
    """

    def __init__(self) -> None:
        self._moments = np.zeros((CAPACITY, 3))  # step, epoch, Unix time
        self._length = 0
        self._stride = 1
        self._skipped = 0

    def add(self, step: float, epoch: float, time: float) -> None:
        """Record when a step was trained. Steps that are not newer are ignored.

        Args:
            step: batches trained since the start.
            epoch: epochs trained, with the part of the current one.
            time: Unix time, seconds.
        """
        if self._length and step <= self._moments[self._length - 1, 0]:
            return
        self._skipped += 1
        if self._length and self._skipped < self._stride:
            return
        self._skipped = 0
        self._moments[self._length] = step, epoch, time
        self._length += 1
        if self._length == CAPACITY:
            self._moments[: CAPACITY // 2] = self._moments[::2].copy()
            self._length //= 2
            self._stride *= 2

    def epochs(self, steps: np.ndarray) -> np.ndarray:
        """Return the epochs trained at each step, same shape."""
        return self._interpolate(steps, self._moments[: self._length, 1])

    def seconds(self, steps: np.ndarray) -> np.ndarray:
        """Return the seconds from the first recorded moment to each step, same shape."""
        times = self._moments[: self._length, 2]
        return self._interpolate(steps, times - (times[0] if len(times) else 0.0))

    def _interpolate(self, steps: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return values at the steps; beyond the recorded moments, continue at the last pace."""
        known = self._moments[: self._length, 0]
        if not len(known):
            return np.zeros(np.shape(steps))
        found = np.interp(steps, known, values)
        if len(known) > 1:
            pace = (values[-1] - values[0]) / (known[-1] - known[0])
            found = found + pace * np.maximum(0.0, np.asarray(steps, float) - known[-1])
        return np.asarray(found)
