"""When each batch of a run was trained: its epoch, and the seconds since the first one."""

from __future__ import annotations

import numpy as np

from revacnn_lightning.history.run_history import SCALARS
from revacnn_lightning.history.time_series import TimeSeries

__all__ = ["RunClock"]


class RunClock:
    """Converts steps to epochs and seconds, by interpolation between recorded batches.

    Args:
        scalars: the series of a run with the columns `SCALARS`.
    """

    def __init__(self, scalars: TimeSeries) -> None:
        self._scalars = scalars

    def epochs(self, steps: np.ndarray) -> np.ndarray:
        """Return the epochs trained at each step, same shape."""
        return self._interpolate(steps, "epoch")

    def seconds(self, steps: np.ndarray) -> np.ndarray:
        """Return the seconds from the first recorded batch to each step, same shape."""
        return self._interpolate(steps, "seconds")

    def _interpolate(self, steps: np.ndarray, column: str) -> np.ndarray:
        """Return values at the steps; beyond the recorded batches, continue at the last pace."""
        known = self._scalars.steps
        if not len(known):
            return np.zeros(np.shape(steps))
        values = self._scalars.rows[:, SCALARS.index(column)].astype(np.float64)
        found = np.interp(steps, known, values)
        if len(known) > 1:
            pace = (values[-1] - values[0]) / (known[-1] - known[0])
            found = found + pace * np.maximum(0.0, np.asarray(steps, float) - known[-1])
        return np.asarray(found)
