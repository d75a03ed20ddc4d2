"""Dead filters: defined here, for the network view, lists, charts and the Python client alike."""

from __future__ import annotations

import numpy as np

__all__ = ["DEAD_BATCHES", "DeadFilterTracker", "find_dead_filters"]

DEAD_BATCHES = 20
MIN_RECORDED = 3  # batches: a filter may be silent in a few by chance


class DeadFilterTracker:
    """Tracks since when each filter has been silent.

    A filter is *silent* in a batch if its activation is exactly zero. It is *dead* if it was silent
    in all batches that were recorded within the last `DEAD_BATCHES`, if these are at least
    `MIN_RECORDED`. A batch in which its activation was not measured (NaN) does not count.

    Attributes:
        n_filters: number of filters of the network.
    """

    def __init__(self, n_filters: int = 0) -> None:
        self._first_step: int | None = None
        self._step = 0
        self._silent_since = np.zeros(n_filters, np.int64)  # step
        self._n_silent = np.zeros(n_filters, np.int32)  # consecutive recorded batches

    @property
    def n_filters(self) -> int:
        return len(self._n_silent)

    @property
    def is_known(self) -> bool:
        """Whether the recorded batches are enough to know which filters are dead."""
        first = self._first_step
        return first is not None and self._step - first >= DEAD_BATCHES - 1

    def add(self, step: int, activation: np.ndarray) -> None:
        """Add the activation of every filter in a batch, (filters,). Steps count batches."""
        self._first_step, self._step = step if self._first_step is None else self._first_step, step
        is_silent = activation == 0
        self._silent_since[is_silent & (self._n_silent == 0)] = step
        self._n_silent += is_silent
        self._n_silent *= is_silent | np.isnan(activation)

    def reorder_filters(self, previous_indices: np.ndarray) -> None:
        """Reorder the filters after an edit.

        Args:
            previous_indices: previous index of each filter, -1 for new filters, int64 (filters,).
        """
        silent_since, n_silent = (
            np.zeros(len(previous_indices), np.int64),
            np.zeros(len(previous_indices), np.int32),
        )
        is_kept = previous_indices >= 0
        silent_since[is_kept] = self._silent_since[previous_indices[is_kept]]
        n_silent[is_kept] = self._n_silent[previous_indices[is_kept]]
        self._silent_since, self._n_silent = silent_since, n_silent

    def mask(self) -> np.ndarray:
        """Return which filters are dead, bool (filters,)."""
        is_long = self._step - self._silent_since >= DEAD_BATCHES - 1
        is_dead: np.ndarray = is_long & (self._n_silent >= MIN_RECORDED)
        return is_dead


def find_dead_filters(steps: np.ndarray, activations: np.ndarray) -> np.ndarray:
    """Return which filters are dead at the end of a recording, bool (filters,).

    Args:
        steps: the steps of the rows, (rows,).
        activations: (rows, filters), one row per recorded batch, or the means of several batches
            that end with those in ``steps``.
    """
    if not len(steps):
        return np.zeros(activations.shape[1], bool)
    dead = DeadFilterTracker(activations.shape[1])
    first = int(np.searchsorted(steps, steps[-1] - DEAD_BATCHES + 1, side="right")) - 1
    for step, row in zip(steps[max(0, first) :], activations[max(0, first) :], strict=True):
        dead.add(int(step), row)
    return dead.mask()
