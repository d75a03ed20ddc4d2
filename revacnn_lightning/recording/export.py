"""Exports a recording as tables: batches, layers, filters and edits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from revacnn_lightning.diagnostics.dead_filters import DeadFilterTracker
from revacnn_lightning.protocol.access_messages import RequestOutcome
from revacnn_lightning.protocol.filter_columns import find_previous_columns
from revacnn_lightning.protocol.messages import Applied, Snapshot, Structure
from revacnn_lightning.recording.recording_reader import RecordingReader
from revacnn_lightning.recording.table_writers import Columns, OpenTable

__all__ = ["TABLES", "export_recording"]

TABLES = ("batches", "layers", "filters", "edits")
EXPORTED = ("structure", "snapshot", "applied")
ROWS_TOGETHER = 50_000  # written at a time, which bounds the memory
BATCH_FIELDS = (
    "step", "epoch", "batch_index", "time", "loss", "batches_per_second", "nonfinite_gradients",
)  # fmt: skip


class RecordingSummary(NamedTuple):
    """What the columns of the tables depend on: all metrics, statistics and outcomes.

    Attributes:
        metrics: names of the logged metrics, in the order of their appearance.
        statistics: names of the statistics of filters.
        n_rates: number of parameter groups.
        outcomes: who has requested what, by id of the request.
    """

    metrics: list[str]
    statistics: list[str]
    n_rates: int
    outcomes: Mapping[str, RequestOutcome] = MappingProxyType({})


def export_recording(path: Path, folder: Path, open_table: OpenTable) -> dict[str, int]:
    """Write the tables of a recording to a folder; return the number of rows of each.

    The recording is read twice, because the first batches do not know all metrics, and an edit does
    not know who has requested it.

    Raises:
        MissingPackageError: a package is not installed.
        RecordingError: the file is not a recording that can be read.
        OSError: a table cannot be written.
    """
    with RecordingReader(path) as reader:
        folder.mkdir(parents=True, exist_ok=True)
        summary = scan_recording(reader)
        tables = {name: _Table(open_table, folder, name) for name in TABLES}
        try:
            for name, columns in _rows(reader, summary):
                tables[name].add(columns)
        finally:
            for table in tables.values():
                table.close()
    return {name: table.n_rows for name, table in tables.items()}


def scan_recording(reader: RecordingReader) -> RecordingSummary:
    """Read the whole recording and return its `RecordingSummary`."""
    outcomes: dict[str, RequestOutcome] = {}
    metrics: dict[str, None] = {}
    statistics: dict[str, None] = {}
    n_rates = 0
    for _, message in reader.messages({"snapshot", "request_outcome"}):
        if isinstance(message, RequestOutcome):
            outcomes[message.id] = message
        elif isinstance(message, Snapshot):
            metrics.update(dict.fromkeys(message.metrics))
            statistics.update(dict.fromkeys(message.statistics))
            n_rates = max(n_rates, len(message.learning_rates))
    return RecordingSummary(list(metrics), list(statistics), n_rates, outcomes)


def _rows(reader: RecordingReader, summary: RecordingSummary) -> Iterator[tuple[str, Columns]]:
    """Yield (table, columns) of all messages."""
    network = _Network(summary)
    for time, message in reader.messages(EXPORTED):
        if isinstance(message, Structure):
            network.update(message)
        elif isinstance(message, Snapshot):
            yield "batches", batch_row(message, summary)
            if network.has_structure_of(message):
                yield from network.rows(message)
        elif isinstance(message, Applied):
            yield "edits", edit_row(message, time, summary.outcomes.get(message.id))


def batch_row(snapshot: Snapshot, summary: RecordingSummary) -> Columns:
    """Return the scalars of a batch; NaN for what it does not know."""
    row = {name: [getattr(snapshot, name)] for name in BATCH_FIELDS}
    row["loss"] = [np.nan if snapshot.loss is None else snapshot.loss]
    rates = snapshot.learning_rates
    for i in range(summary.n_rates):
        row[f"learning_rate_{i}"] = [rates[i] if i < len(rates) else np.nan]
    for name in summary.metrics:
        row[f"metric_{name}"] = [snapshot.metrics.get(name, np.nan)]
    return row


def edit_row(applied: Applied, time: int, outcome: RequestOutcome | None) -> Columns:
    """Return an applied edit, and who has requested it."""
    plan = applied.plan
    return {
        "step": [applied.step],
        "time": [time / 1e9],
        "version": [applied.version],
        "title": [plan.title],
        "parameters_before": [plan.parameters_before],
        "parameters_after": [plan.parameters_after],
        "output_effect": [plan.output_effect],
        "output_change": [np.nan if applied.output_change is None else applied.output_change],
        "seconds": [applied.seconds],
        "id": [applied.id],
        "key": ["" if outcome is None else outcome.key],
        "host": ["" if outcome is None else outcome.host],
    }


class _Network:
    """The network as it was when a batch was recorded."""

    def __init__(self, summary: RecordingSummary) -> None:
        self._summary = summary
        self._structure: Structure | None = None
        self._dead = DeadFilterTracker()
        self._widths = np.zeros(0, np.int64)
        self._layers = np.zeros(0, object)
        self._ids = self._indices = np.zeros(0, np.int64)
        self._observed = np.zeros(0, bool)

    def update(self, structure: Structure) -> None:
        known = self._structure
        if known is not None and structure.version < known.version:
            return
        self._structure = structure
        if known is None or structure.version != known.version:
            self._dead.reorder_filters(find_previous_columns(known, structure))
        layers = structure.layers
        self._widths = np.array([len(layer.filter_ids) for layer in layers], np.int64)
        self._layers = np.repeat(np.array([layer.name for layer in layers], object), self._widths)
        self._ids = np.array([i for layer in layers for i in layer.filter_ids], np.int64)
        self._indices = np.array([i for width in self._widths for i in range(width)], np.int64)
        self._observed = np.repeat(np.array([one.observed for one in layers], bool), self._widths)

    def has_structure_of(self, snapshot: Snapshot) -> bool:
        """Return whether a batch was trained with this network."""
        shape = (len(snapshot.statistics), len(self._ids))
        structure = self._structure
        is_current = structure is not None and snapshot.version == structure.version
        return is_current and len(self._ids) > 0 and snapshot.values.shape == shape

    def rows(self, snapshot: Snapshot) -> Iterator[tuple[str, Columns]]:
        """Yield the statistics of the filters, and their means over the layers."""
        known = dict(zip(snapshot.statistics, snapshot.values, strict=True))
        missing = np.full(len(self._ids), np.nan, np.float32)
        values = {name: known.get(name, missing) for name in self._summary.statistics}
        if "activation" in known:
            self._dead.add(snapshot.step, known["activation"])
        dead = self._dead.mask() & self._observed
        yield (
            "filters",
            {
                "step": np.full(len(self._ids), snapshot.step),
                "layer": self._layers,
                "filter_id": self._ids,
                "index": self._indices,
                **values,
                "dead": dead,
            },
        )
        structure = self._structure
        assert structure is not None
        shares = np.where(dead, 1.0, 0.0) if self._dead.is_known else missing
        used = [i for i, width in enumerate(self._widths) if width]
        yield (
            "layers",
            {
                "step": np.full(len(used), snapshot.step),
                "layer": [structure.layers[i].name for i in used],
                "filters": self._widths[used],
                **{f"{name}_mean": self._means(row) for name, row in values.items()},
                "dead_share": self._means(shares),
            },
        )

    def _means(self, row: np.ndarray) -> list[float]:
        """Return the mean of the measured values of each layer that has filters."""
        parts = np.split(row.astype(np.float64), np.cumsum(self._widths)[:-1])
        measured = [part[~np.isnan(part)] for part in parts if len(part)]
        return [float(part.mean()) if len(part) else np.nan for part in measured]


class _Table:
    """Collects rows, and writes many of them together."""

    def __init__(self, open_table: OpenTable, folder: Path, name: str) -> None:
        self.n_rows = 0
        self._writer = open_table(folder, name)
        self._columns: dict[str, list[object]] = {}
        self._n_collected = 0

    def add(self, columns: Columns) -> None:
        n_rows = len(next(iter(columns.values())))
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(np.asarray(values))
        self.n_rows += n_rows
        self._n_collected += n_rows
        if self._n_collected >= ROWS_TOGETHER:
            self._write()

    def close(self) -> None:
        try:
            self._write()
        finally:
            self._writer.close()

    def _write(self) -> None:
        if self._columns:
            self._writer.write({n: np.concatenate(parts) for n, parts in self._columns.items()})  # type: ignore[arg-type]
        self._columns, self._n_collected = {}, 0
