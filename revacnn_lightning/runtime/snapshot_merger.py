"""Merges the snapshots of several batches into one, for trainings with many batches per second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import msgspec
import numpy as np

from revacnn_lightning.protocol.messages import Snapshot

__all__ = ["BatchSnapshotSums", "SnapshotMerger"]


class SnapshotMerger:
    """Merges snapshots so that at most one of them is published per interval.

    A merged snapshot is that of its last batch, with the mean and the maximum of each statistic
    over all of its batches. A value that a batch did not record, NaN, counts in neither.

    Args:
        interval: seconds between two snapshots; 0 merges none.
        clock: returns the current time in seconds.
    """

    def __init__(self, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._last_time = -np.inf
        self._pending: BatchSnapshotSums | None = None

    def add(self, snapshot: Snapshot) -> Iterator[Snapshot]:
        """Add the snapshot of a batch; yield those that are complete, oldest first."""
        if not self._interval:
            yield snapshot
            return
        if self._pending is None:
            self._pending = BatchSnapshotSums(snapshot)
        elif not self._pending.try_add(snapshot):  # of a network before an edit
            yield from self.flush()
            self._pending = BatchSnapshotSums(snapshot)
        if self._clock() - self._last_time >= self._interval:
            yield from self.flush()

    def finish(self) -> Iterator[Snapshot]:
        """Yield what `flush` yields: no batch follows."""
        yield from self.flush()

    def flush(self) -> Iterator[Snapshot]:
        """Yield the snapshot of the batches since the last one, if there are any."""
        pending, self._pending = self._pending, None
        if pending is not None:
            self._last_time = self._clock()
            yield pending.merged()


class BatchSnapshotSums:
    """The sums over the batches of a snapshot, at least one."""

    def __init__(self, first: Snapshot) -> None:
        self._first = self._last = first
        self._losses = [first.loss]
        self._nonfinite_gradients = first.nonfinite_gradients
        self._total = self._maxima = self._counts = np.zeros((0, 0), np.float32)

    def try_add(self, snapshot: Snapshot) -> bool:
        """Add a batch; return False if its statistics are not those of the others."""
        first = self._first
        if (first.version, first.statistics) != (snapshot.version, snapshot.statistics):
            return False
        if first.values.shape != snapshot.values.shape:
            return False
        if len(self._losses) == 1:
            self._total = np.zeros(first.values.shape, np.float32)
            self._maxima = np.full(first.values.shape, np.nan, np.float32)
            self._counts = np.zeros(first.values.shape, np.float32)
            self._add_values(first.values)
        self._add_values(snapshot.values)
        self._losses.append(snapshot.loss)
        self._nonfinite_gradients |= snapshot.nonfinite_gradients
        self._last = snapshot
        return True

    def merged(self) -> Snapshot:
        """Return the snapshot of all batches."""
        if len(self._losses) == 1:
            return self._last
        losses = np.array([loss for loss in self._losses if loss is not None])
        with np.errstate(all="ignore"):  # infinite values are data, and none may be recorded
            mean_loss, mean = losses.mean() if len(losses) else None, self._total / self._counts
        return msgspec.structs.replace(
            self._last,
            values=mean,
            maxima=self._maxima,
            loss=None if mean_loss is None else float(mean_loss),
            max_loss=float(losses.max()) if len(losses) else None,  # NaN if one is
            first_step=self._first.step,
            batch_count=len(self._losses),
            nonfinite_gradients=self._nonfinite_gradients,
        )

    def _add_values(self, values: np.ndarray) -> None:
        is_recorded = ~np.isnan(values)
        with np.errstate(all="ignore"):
            np.add(self._total, values, out=self._total, where=is_recorded)
        self._counts += is_recorded
        np.fmax(self._maxima, values, out=self._maxima)
