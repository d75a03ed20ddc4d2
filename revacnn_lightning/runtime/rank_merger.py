"""Merges the snapshots of rank 0 into those of all ranks, while all of them record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np

from revacnn_lightning.protocol.messages import Snapshot
from revacnn_lightning.runtime.ranks.rank_statistics import PendingReduction, RankStatistics
from revacnn_lightning.runtime.ranks.statistic_sums import StatisticSums
from revacnn_lightning.runtime.snapshot_merger import BatchSnapshotSums, SnapshotMerger
from revacnn_lightning.telemetry import Recorder

__all__ = ["RankSnapshotMerger", "make_snapshot_merger"]


class RankSnapshotMerger:
    """A `SnapshotMerger` for a training with several ranks.

    While all ranks record, a snapshot has the means over them and over the batches since the last
    one. Otherwise, it is that of rank 0.

    Args:
        statistics: the statistics of rank 0, and summed up over all ranks.
        get_layout: returns the recorded layers and their widths.
        interval: seconds between two snapshots of rank 0.
        on_reduction: receives each sum that has arrived, and the snapshot that it belongs to.
    """

    def __init__(
        self,
        statistics: RankStatistics,
        get_layout: Callable[[], tuple[Sequence[str], Sequence[int]]],
        interval: float = 0.0,
        on_reduction: Callable[[PendingReduction, Snapshot], None] = lambda *_: None,
    ) -> None:
        self._statistics = statistics
        self._get_layout = get_layout
        self._on_reduction = on_reduction
        self._alone = SnapshotMerger(interval)
        self._sums: BatchSnapshotSums | None = None  # of rank 0, since the last sum over all ranks
        statistics.take_template = self._take

    def add(self, snapshot: Snapshot) -> Iterator[Snapshot]:
        """Add the snapshot of a batch of rank 0; yield those that are complete, oldest first."""
        yield from self._completed()
        if not self._statistics.recorded:
            yield from self._remaining()
            yield from self._alone.add(snapshot)
            return
        if self._sums is not None and not self._sums.try_add(
            snapshot
        ):  # of a network before an edit
            yield from self._remaining()
        if self._sums is None:
            self._sums = BatchSnapshotSums(snapshot)
        layers, widths = self._get_layout()
        if sum(widths) == snapshot.values.shape[1]:
            self._statistics.add(
                layers, widths, snapshot.statistics, snapshot.values, snapshot.loss,
                nonfinite=snapshot.nonfinite_gradients,
            )  # fmt: skip

    def flush(self) -> Iterator[Snapshot]:
        """Yield what has arrived, and the batches of rank 0 that no other rank will add to."""
        yield from self._completed()
        if not self._statistics.recorded:
            yield from self._remaining()
        yield from self._alone.flush()

    def finish(self) -> Iterator[Snapshot]:
        """Yield what has arrived, and those of rank 0 for the rest: no batch follows."""
        yield from self._completed()
        yield from self._remaining()
        yield from self._alone.flush()

    def _take(self) -> Snapshot | None:
        sums, self._sums = self._sums, None
        return None if sums is None else sums.merged()

    def _remaining(self) -> Iterator[Snapshot]:
        rest = self._take()
        if rest is not None:
            yield rest

    def _completed(self) -> Iterator[Snapshot]:
        for reduction in self._statistics.completed():
            own: Snapshot | None = reduction.template
            if own is not None:
                shown = _of_all_ranks(own, reduction)
                self._on_reduction(reduction, shown)
                yield shown


def make_snapshot_merger(
    statistics: RankStatistics | None,
    recorder: Recorder,
    interval: float,
    on_reduction: Callable[[PendingReduction, Snapshot], None],
) -> SnapshotMerger | RankSnapshotMerger:
    """Return the merger of the snapshots of a run. ``statistics`` is None if it has one rank."""
    if statistics is None:
        return SnapshotMerger(interval)
    return RankSnapshotMerger(
        statistics, lambda: (recorder.layers, recorder.widths), interval, on_reduction
    )


def _of_all_ranks(own: Snapshot, reduction: PendingReduction) -> Snapshot:
    """Return a snapshot of rank 0 with the means over all ranks."""
    means = reduction.means()
    if reduction.order is None or means.ranks <= 1:
        return own
    names, wanted = reduction.statistics, own.statistics
    is_single = own.batch_count == 1
    return msgspec.structs.replace(
        own,
        values=_rows(names, means.values, wanted, own.values),
        maxima=None if is_single else _rows(names, means.maxima, wanted, own.values),
        loss=means.loss,
        max_loss=None if is_single else means.max_loss,
        nonfinite_gradients=means.nonfinite,
        ranks=means.ranks,
    )


def _rows(
    names: Sequence[str], values: np.ndarray, wanted: Sequence[str], own: np.ndarray
) -> np.ndarray:
    """Return the rows of ``wanted``; those that only rank 0 has recorded are its own."""
    rows = StatisticSums.select_rows(names, values, wanted)
    missing = [i for i, name in enumerate(wanted) if name not in names]
    rows[missing] = own[missing]
    return rows
