"""Dead filters: defined here, for the network view, lists, charts and the Python client alike."""

from __future__ import annotations

import numpy as np

__all__ = ["DEAD_BATCHES", "DeadFilters", "find_dead"]

DEAD_BATCHES = 20


class DeadFilters:
    """Counts for how many batches in a row each filter has been silent.

    A filter is *silent* in a batch if its activation is exactly zero. It is *dead* if it was silent
    in each of the last `DEAD_BATCHES` recorded batches. A batch in which the activation was not
    measured (NaN) does not count.

    Attributes:
        n_batches: number of batches so far; before `DEAD_BATCHES`, no filter is known to be dead.
    """

    def __init__(self, n_filters: int = 0) -> None:
        self.n_batches = 0
        self._silent_batches = np.zeros(n_filters, np.int32)

    @property
    def n_filters(self) -> int:
        """Number of filters of the network."""
        return len(self._silent_batches)

    def add(self, activation: np.ndarray) -> None:
        """Add the activation of every filter in one batch, (filters,)."""
        is_silent = activation == 0
        self._silent_batches += is_silent
        self._silent_batches *= is_silent | np.isnan(activation)
        self.n_batches += 1

    def remap(self, source: np.ndarray) -> None:
        """Reorder the filters after an edit.

        Args:
            source: previous index of each filter, -1 for new filters, int64 (filters,).
        """
        silent_batches = np.zeros(len(source), np.int32)
        is_kept = source >= 0
        silent_batches[is_kept] = self._silent_batches[source[is_kept]]
        self._silent_batches = silent_batches

    def mask(self) -> np.ndarray:
        """Return which filters are dead, bool (filters,)."""
        return self._silent_batches >= DEAD_BATCHES


def find_dead(activations: np.ndarray, batches_per_row: int) -> np.ndarray:
    """Return which filters are dead at the end of a recording, bool (filters,).

    Args:
        activations: (rows, filters), one row per batch, or the means of several batches.
        batches_per_row: number of batches in each row.
    """
    n_rows = -(-DEAD_BATCHES // batches_per_row)
    if len(activations) < n_rows:
        return np.zeros(activations.shape[1], bool)
    is_dead: np.ndarray = (activations[len(activations) - n_rows :] == 0).all(axis=0)
    return is_dead
