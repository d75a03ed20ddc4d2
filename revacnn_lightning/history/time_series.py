"""A time series of bounded size that always covers the whole run."""

from __future__ import annotations

import mmap

import numpy as np

__all__ = ["TimeSeries", "mean_per_segment"]

MIN_CAPACITY = 4
BLOCK_VALUES = 2**18  # merged in one piece, which bounds the temporary arrays


class TimeSeries:
    """Rows of values over training batches.

    A row is the mean of all samples of ``stride`` consecutive batches. When the series is full,
    the stride doubles and rows that now belong together are replaced by their mean, weighted by
    their numbers of samples. The series therefore covers the whole run evenly, however densely it
    was sampled. NaN means "no value".

    Args:
        width: number of values per row.
        capacity: maximum number of rows.
        max_bytes: maximum size of the values; wide rows reduce the capacity.

    Attributes:
        stride: batches per row.
        length: number of rows.
    """

    def __init__(self, width: int, capacity: int, max_bytes: int = 2**62) -> None:
        self.stride = 1
        self.length = 0
        self._max_rows, self._max_bytes = capacity, max_bytes
        self._allocate(width)

    def _allocate(self, width: int) -> None:
        capacity = min(self._max_rows, self._max_bytes // max(1, 4 * width))
        self._capacity = max(MIN_CAPACITY, capacity)
        self._steps = np.zeros(self._capacity, np.float64)
        self._weights = np.zeros(self._capacity, np.float64)
        self._rows = _nan_rows(self._capacity, width)
        # Sums and numbers of the finite values in the last row, if it has several samples.
        self._last: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def steps(self) -> np.ndarray:
        """Step of the last sample of each row, float64 (length,)."""
        return self._steps[: self.length]

    @property
    def weights(self) -> np.ndarray:
        """Number of samples of each row, float64 (length,)."""
        return self._weights[: self.length]

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

    @np.errstate(over="ignore")  # what float32 cannot hold becomes infinite
    def add(self, step: float, row: np.ndarray) -> None:
        """Add a sample; it is ignored if it is older than the last one."""
        if self.length and step < self._steps[self.length - 1]:
            return
        if self.length and step // self.stride == self._steps[self.length - 1] // self.stride:
            self._add_to_last_row(step, row)
        elif self.length == self._capacity:
            self._double_stride()
            self.add(step, row)
        else:
            self._steps[self.length], self._weights[self.length] = step, 1
            self._rows[self.length] = row
            self._last = None
            self.length += 1

    def prepend(self, steps: np.ndarray, weights: np.ndarray, rows: np.ndarray) -> None:
        """Insert rows of earlier batches; those that are not earlier are ignored.

        Args:
            steps: non-negative and ascending, (n,).
            weights: number of samples of each row, (n,).
            rows: values, (n, width).

        Raises:
            ValueError: the arrays do not fit together or are not ascending.
        """
        self._insert(0, -1.0, steps, weights, rows)

    def fill_gap(
        self, after: float, steps: np.ndarray, weights: np.ndarray, rows: np.ndarray
    ) -> None:
        """Insert rows of the batches between ``after`` and the next known one.

        Arguments and errors are those of `prepend`.
        """
        at = int(np.searchsorted(self.steps, after, side="right"))
        self._insert(at, after, steps, weights, rows)

    def _insert(
        self, at: int, after: float, steps: np.ndarray, weights: np.ndarray, rows: np.ndarray
    ) -> None:
        """Insert before row ``at`` what is newer than ``after`` and older than this row."""
        if rows.shape != (len(steps), self.width) or weights.shape != steps.shape:
            raise ValueError(f"rows of the shape {rows.shape} do not fit {len(steps)} steps")
        if len(steps) and not (steps[0] >= 0 and np.all(np.diff(steps) > 0) and steps[-1] < 2**53):
            raise ValueError("the steps are not ascending")
        end = np.searchsorted(steps, self._steps[at]) if at < self.length else len(steps)
        new = slice(int(np.searchsorted(steps, after, side="right")), int(end))
        all_steps = np.concatenate([self.steps[:at], steps[new], self.steps[at:]])
        new_weights = np.maximum(weights[new], 1)
        all_weights = np.concatenate([self.weights[:at], new_weights, self.weights[at:]])
        all_rows = np.concatenate([self.rows[:at], rows[new], self.rows[at:]])
        length = len(all_steps)
        while length > self._capacity:
            self.stride *= 2
            length = _merge_rows(
                all_steps[:length], all_weights[:length], all_rows[:length], self.stride
            )
        self.length, self._last = length, None
        self._steps[:length], self._weights[:length] = all_steps[:length], all_weights[:length]
        self._rows[:length] = all_rows[:length]

    def drop_from(self, step: float) -> None:
        """Drop the rows of this batch and of all later ones."""
        self.length = int(np.searchsorted(self.steps, step))
        self._last = None

    def select_columns(self, previous_columns: np.ndarray) -> None:
        """Make the new column ``i`` the old column ``previous_columns[i]``; NaN if negative."""
        steps, weights, rows = self.steps, self.weights, self.rows
        self._allocate(len(previous_columns))
        while len(steps) > self._capacity:  # wider rows than before
            self.stride *= 2
            self.length = _merge_rows(steps, weights, rows, self.stride)
            steps, weights, rows = (
                each[: self.length] for each in (steps, weights, rows)
            )  # fmt: skip
        self._steps[: self.length], self._weights[: self.length] = steps, weights
        kept = previous_columns >= 0
        for i in range(self.length):  # by row, to save a temporary copy of a large series
            self._rows[i, kept] = rows[i, previous_columns[kept]]

    def _add_to_last_row(self, step: float, row: np.ndarray) -> None:
        at = self.length - 1
        if self._last is None:
            is_finite = np.isfinite(self._rows[at])
            self._last = (
                np.where(is_finite, self._rows[at], 0) * self._weights[at],
                is_finite * self._weights[at],
            )
        total, count = self._last
        is_finite = np.isfinite(row)
        total += np.where(is_finite, row, 0)
        count += is_finite
        self._steps[at] = step
        self._weights[at] += 1
        self._rows[at] = np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def _double_stride(self) -> None:
        self.stride *= 2
        self.length = _merge_rows(self.steps, self.weights, self.rows, self.stride)
        self._last = None


@np.errstate(invalid="ignore")  # of infinities of both signs
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


def _merge_rows(steps: np.ndarray, weights: np.ndarray, rows: np.ndarray, stride: int) -> int:
    """Merge the rows of the same ``stride`` batches in place, and return how many remain."""
    starts = np.flatnonzero(np.diff(steps // stride, prepend=-1))
    ends = np.append(starts[1:], len(steps))
    n = len(starts)
    if n == len(steps):
        return n
    block = max(1, BLOCK_VALUES // max(1, rows.shape[1]))
    for first in range(0, n, block):
        part = starts[first : first + block]
        begin, end = part[0], ends[min(first + block, n) - 1]
        means = _weighted_means(rows[begin:end], weights[begin:end], part - begin)
        rows[first : first + len(part)] = means
    weights[:n] = np.add.reduceat(weights, starts)
    steps[:n] = steps[ends - 1]
    return n


def _weighted_means(rows: np.ndarray, weights: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return the weighted mean of each group of rows, ignoring values that are not finite."""
    ends = np.append(starts[1:], len(rows))
    if np.max(ends - starts) > 2:
        return _weighted_finite_means(rows, weights, starts)
    means = _means_of_pairs(rows, weights, starts, ends)
    incomplete = ~np.isfinite(means).all(axis=0)
    if incomplete.any():
        means[:, incomplete] = _weighted_finite_means(rows[:, incomplete], weights, starts)
    return means


@np.errstate(invalid="ignore", over="ignore")  # of values that are not finite
def _means_of_pairs(
    rows: np.ndarray, weights: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> np.ndarray:
    """Return the mean of groups of one or two rows: a short pause, however large the series is."""
    shares = np.where(ends - starts > 1, weights[ends - 1], 0) / np.add.reduceat(weights, starts)
    first = rows[starts]
    means = rows[ends - 1]  # a copy
    means -= first
    means *= shares[:, None].astype(np.float32)
    means += first
    return means


def _weighted_finite_means(rows: np.ndarray, weights: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return what `_weighted_means` does, for any groups and any values."""
    is_finite = np.isfinite(rows)
    weight = is_finite * weights[:, None]
    total = np.add.reduceat(np.where(is_finite, rows, 0) * weight, starts, axis=0)
    weight = np.add.reduceat(weight, starts, axis=0)
    return np.where(weight > 0, total / np.maximum(weight, 1), np.nan)


def _nan_rows(rows: int, width: int) -> np.ndarray:
    """Return NaN, float32 (rows, width), in memory that is returned to the system when freed.

    On the heap, every edit of a large network would increase fragmentation.
    """
    memory = mmap.mmap(-1, max(4, 4 * rows * width))
    array = np.frombuffer(memory, np.float32)[: rows * width].reshape(rows, width)
    array[:] = np.nan
    return array
