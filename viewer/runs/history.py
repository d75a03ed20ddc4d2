"""A history of bounded size that always reaches back to its beginning."""

from __future__ import annotations

import mmap

import numpy as np

__all__ = ["History", "means_of_runs"]


class History:
    """Rows over steps. When full, neighbouring rows are averaged and it goes on half as densely.

    So it holds the whole time since attaching, at a resolution of ``capacity / 2`` to ``capacity``
    rows, and what lies between two rows is in their means. NaN means "no value".
    """

    def __init__(self, width: int, capacity: int) -> None:
        self.stride = 1  # snapshots per row
        self.length = 0
        self._capacity = max(4, capacity - capacity % 2)
        self._steps = np.zeros(self._capacity, np.float64)
        self._rows = _empty(self._capacity, width)
        self._pending: list[tuple[float, np.ndarray]] = []

    @property
    def steps(self) -> np.ndarray:
        """Step of each row, (length,)."""
        return self._steps[: self.length]

    @property
    def rows(self) -> np.ndarray:
        """Values, (length, width)."""
        return self._rows[: self.length]

    @property
    def capacity(self) -> int:
        """The most rows that are held."""
        return self._capacity

    @property
    def width(self) -> int:
        return int(self._rows.shape[1])

    def add(self, step: float, row: np.ndarray) -> bool:
        """Take one snapshot's values; True if a row was completed by it."""
        self._pending.append((step, row))
        if len(self._pending) < self.stride:
            return False
        steps, rows = zip(*self._pending, strict=True)
        self._pending.clear()
        self._steps[self.length] = steps[-1]
        self._rows[self.length] = rows[0] if len(rows) == 1 else _mean(np.stack(rows))
        self.length += 1
        if self.length == self._capacity:  # at once: the next row is gathered at the new stride
            self._halve()
        return True

    def select_columns(self, source: np.ndarray) -> None:
        """Follow an edit: new column ``i`` is old column ``source[i]``, or empty if negative."""
        rows = _empty(self._capacity, len(source))
        kept = source >= 0
        for i in range(self.length):  # row by row, as below
            rows[i, kept] = self._rows[i, source[kept]]
        self._rows = rows
        self._pending.clear()

    def _halve(self) -> None:
        half = self._capacity // 2
        for i in range(half):  # row by row: no second copy of a large history
            self._rows[i] = _mean(self._rows[2 * i : 2 * i + 2])
            self._steps[i] = self._steps[2 * i + 1]
        self.length = half
        self.stride *= 2


def _empty(rows: int, width: int) -> np.ndarray:
    """Rows of NaN, in memory that the system gets back as soon as nobody holds them.

    The heap would keep it: with every edit of a large network it would be more in pieces.
    """
    memory = mmap.mmap(-1, max(4, 4 * rows * width))
    found = np.frombuffer(memory, np.float32)[: rows * width].reshape(rows, width)
    found[:] = np.nan
    return found


def _mean(rows: np.ndarray) -> np.ndarray:
    """Mean over the rows, of the values that are there."""
    plain: np.ndarray = rows.mean(axis=0)
    if np.isfinite(plain.sum()):  # none is missing: nearly always
        return plain
    there = np.isfinite(rows)
    count = there.sum(axis=0)
    total = np.where(there, rows, 0).sum(axis=0, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def means_of_runs(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The mean of each run of every row, of the values that are there; NaN where none is."""
    starts = offsets[:-1]
    total = np.add.reduceat(values, starts, axis=1, dtype=np.float64)
    if np.isfinite(total).all():  # none is missing: nearly always
        return total / np.diff(offsets)
    there = np.isfinite(values)
    total = np.add.reduceat(np.where(there, values, 0), starts, axis=1, dtype=np.float64)
    count = np.add.reduceat(there, starts, axis=1, dtype=np.int64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
