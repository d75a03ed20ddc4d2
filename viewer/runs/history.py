"""A time series of bounded size that always covers the whole run."""

from __future__ import annotations

import mmap

import numpy as np

__all__ = ["History", "mean_per_segment"]


class History:
    """Rows of values over training steps.

    When the history is full, every two adjacent rows are replaced by their mean, and further
    rows are means of twice as many snapshots. The history therefore covers the whole time since
    attaching, with ``capacity / 2`` to ``capacity`` rows. NaN means "no value".

    Attributes:
        stride: snapshots per row.
        length: number of rows.
    """

    def __init__(self, width: int, capacity: int) -> None:
        self.stride = 1
        self.length = 0
        self._capacity = max(4, capacity - capacity % 2)
        self._steps = np.zeros(self._capacity, np.float64)
        self._rows = _nan_rows(self._capacity, width)
        self._pending: list[tuple[float, np.ndarray]] = []

    @property
    def steps(self) -> np.ndarray:
        """Step of each row, float64 (length,)."""
        return self._steps[: self.length]

    @property
    def rows(self) -> np.ndarray:
        """Values, float32 (length, width)."""
        return self._rows[: self.length]

    @property
    def capacity(self) -> int:
        """Maximum number of rows."""
        return self._capacity

    @property
    def width(self) -> int:
        """Number of values per row."""
        return int(self._rows.shape[1])

    def add(self, step: float, row: np.ndarray) -> bool:
        """Add the values of one snapshot. Return whether they completed a row."""
        self._pending.append((step, row))
        if len(self._pending) < self.stride:
            return False
        steps, rows = zip(*self._pending, strict=True)
        self._pending.clear()
        self._steps[self.length] = steps[-1]
        self._rows[self.length] = rows[0] if len(rows) == 1 else _nan_mean(np.stack(rows))
        self.length += 1
        if self.length == self._capacity:  # now, so that the next row uses the new stride
            self._halve()
        return True

    def select_columns(self, source: np.ndarray) -> None:
        """Reorder the columns: column ``i`` becomes column ``source[i]``, NaN if negative."""
        rows = _nan_rows(self._capacity, len(source))
        kept = source >= 0
        for i in range(self.length):  # by row, to save a temporary copy of a large history
            rows[i, kept] = self._rows[i, source[kept]]
        self._rows = rows
        self._pending.clear()

    def _halve(self) -> None:
        half = self._capacity // 2
        for i in range(half):
            self._rows[i] = _nan_mean(self._rows[2 * i : 2 * i + 2])
            self._steps[i] = self._steps[2 * i + 1]
        self.length = half
        self.stride *= 2


def mean_per_segment(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the mean of each segment of columns, ignoring NaN; NaN for segments without values.

    Args:
        values: (rows, columns).
        offsets: first column of each segment, and the number of columns, (segments + 1,).

    Returns:
        Means, (rows, segments).
    """
    starts = offsets[:-1]
    total = np.add.reduceat(values, starts, axis=1, dtype=np.float64)
    if np.isfinite(total).all():  # nothing is missing: the usual case
        return total / np.diff(offsets)
    is_finite = np.isfinite(values)
    total = np.add.reduceat(np.where(is_finite, values, 0), starts, axis=1, dtype=np.float64)
    count = np.add.reduceat(is_finite, starts, axis=1, dtype=np.int64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _nan_rows(rows: int, width: int) -> np.ndarray:
    """Return NaN, float32 (rows, width), in memory that is returned to the system when freed.

    On the heap, every edit of a large network would increase fragmentation.
    """
    memory = mmap.mmap(-1, max(4, 4 * rows * width))
    array = np.frombuffer(memory, np.float32)[: rows * width].reshape(rows, width)
    array[:] = np.nan
    return array


def _nan_mean(rows: np.ndarray) -> np.ndarray:
    """Return the mean over the rows, ignoring values that are not finite."""
    mean: np.ndarray = rows.mean(axis=0)
    if np.isfinite(mean.sum()):  # nothing is missing: the usual case
        return mean
    is_finite = np.isfinite(rows)
    count = is_finite.sum(axis=0)
    total = np.where(is_finite, rows, 0).sum(axis=0, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
