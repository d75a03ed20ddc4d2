"""The history of a run: its loss, rates and metrics, and the means of its layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from msgspec.structs import replace

from revacnn_lightning.history.time_series import TimeSeries, mean_per_segment
from revacnn_lightning.protocol.messages import History, HistoryEdit, HistorySeries, Snapshot

__all__ = ["LAYER_STATISTICS", "SCALARS", "RunHistory"]

SCALARS = ("loss", "batches_per_second", "epoch", "seconds")  # columns of `RunHistory.scalars`
LAYER_STATISTICS = ("gradient", "activation", "update_ratio", "dead")
SCALAR_ROWS = 2048  # more points than a chart has pixels
LAYER_ROWS = METRIC_ROWS = 1024
# Together with at most `MAX_METRICS` series of metrics, less than 8 MB.
LAYER_BYTES = 2**20  # per statistic
RATE_BYTES = 2**19
MAX_METRICS = 64
MAX_EDITS = 1024
SECONDS = SCALARS.index("seconds")

Insert = Callable[..., None]  # a method of `TimeSeries` that inserts rows


class RunHistory:
    """The history of a run, thinned to a bounded size.

    Attributes:
        start: Unix time of the first snapshot; 0 before it.
        scalars: columns `SCALARS`.
        learning_rates: one column per parameter group.
        metrics: one single-column series per logged metric.
        layer_names: the layers, in forward order.
        layers: per statistic in `LAYER_STATISTICS`, the mean over each layer's filters, one column
            per layer. For ``"dead"`` it is the share of dead filters.
        edits: the edits of the network, oldest first.
    """

    def __init__(self) -> None:
        self.start = 0.0
        self.scalars = TimeSeries(len(SCALARS), SCALAR_ROWS)
        self.learning_rates = TimeSeries(1, SCALAR_ROWS, RATE_BYTES)
        self.metrics: dict[str, TimeSeries] = {}
        self.layer_names: list[str] = []
        self.layers = {name: TimeSeries(0, LAYER_ROWS, LAYER_BYTES) for name in LAYER_STATISTICS}
        self.edits: list[HistoryEdit] = []
        self._metric_values: dict[str, float] = {}

    # ------------------------------------------------------------------ new batches

    def set_layers(self, names: list[str]) -> None:
        """Adopt the layers of an edited network. Layers that remain keep their columns."""
        if names == self.layer_names:
            return
        source = _columns(self.layer_names, names)
        self.layer_names = list(names)
        for series in self.layers.values():
            series.select_columns(source)

    def add_scalars(self, snapshot: Snapshot) -> None:
        """Add a snapshot's loss, speed, time and learning rates."""
        self.start = self.start or snapshot.time
        loss = math.nan if snapshot.loss is None else snapshot.loss
        seconds = snapshot.time - self.start
        row = [loss, snapshot.batches_per_second, _epochs_trained(snapshot), seconds]
        self.scalars.add(snapshot.step, np.array(row))
        self._add_learning_rates(snapshot.step, snapshot.learning_rates)

    def add_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add one point per change of a metric: most change once per epoch."""
        for name, value in metrics.items():
            series = self._metric(name)
            if series is not None and self._metric_values.get(name) != value:
                self._metric_values[name] = value
                series.add(step, np.array([value]))

    def add_layers(
        self,
        step: int,
        values: Mapping[str, np.ndarray],
        dead: np.ndarray | None,
        offsets: np.ndarray,
    ) -> None:
        """Add the mean values of each layer.

        Args:
            values: per statistic, (filters,).
            dead: which filters are dead, bool (filters,); None if this is unknown.
            offsets: index of each layer's first filter, (layers + 1,).
        """
        if len(offsets) < 2:
            return
        is_dead = np.full(offsets[-1], np.nan) if dead is None else dead
        per_layer = {**values, "dead": is_dead.astype(np.float32)}
        names = [name for name in self.layers if name in per_layer]
        means = mean_per_segment(np.stack([per_layer[name] for name in names]), offsets)
        for name, row in zip(names, means, strict=True):
            self.layers[name].add(step, row)

    def add_edit(self, edit: HistoryEdit) -> None:
        """Add an edit; the oldest of too many are dropped."""
        self.edits.append(edit)
        del self.edits[:-MAX_EDITS]

    def drop_from(self, step: int) -> None:
        """Drop this batch and all later ones, which are trained again."""
        for series in (self.scalars, self.learning_rates, *self.layers.values()):
            series.drop_from(step)
        for series in self.metrics.values():
            series.drop_from(step)
        self._metric_values = {
            name: float(series.rows[-1, 0])
            for name, series in self.metrics.items()
            if series.length
        }
        self.edits = [edit for edit in self.edits if edit.step < step]

    def _add_learning_rates(self, step: int, rates: list[float]) -> None:
        if rates:
            self._set_rate_count(len(rates))
            self.learning_rates.add(step, np.array(rates))

    def _set_rate_count(self, n: int) -> None:
        n_before = self.learning_rates.width
        if n != n_before:
            source = np.arange(n)
            self.learning_rates.select_columns(np.where(source < n_before, source, -1))

    def _metric(self, name: str) -> TimeSeries | None:
        """Return the series of a metric; None if there are too many."""
        if name not in self.metrics and len(self.metrics) < MAX_METRICS:
            self.metrics[name] = TimeSeries(1, METRIC_ROWS)
        return self.metrics.get(name)

    # ------------------------------------------------------------------ messages

    def to_message(self, request_id: str = "") -> History:
        """Return the whole history as the reply to a request."""
        return History(
            id=request_id,
            scalar_names=list(SCALARS),
            scalars=_sent(self.scalars),
            learning_rates=_sent(self.learning_rates),
            layer_names=list(self.layer_names),
            layers={name: _sent(series) for name, series in self.layers.items()},
            metrics={name: _sent(series) for name, series in self.metrics.items()},
            edits=list(self.edits),
            start=self.start,
        )

    @classmethod
    def from_message(cls, message: History) -> RunHistory:
        """Return the history in a message.

        Raises:
            ValueError: its parts do not fit together.
        """
        history = cls()
        history.set_layers(message.layer_names)
        history.prepend(message)
        for edit in message.edits:
            history.add_edit(replace(edit, version=-1))  # versions begin with each training
        return history

    def fill_gap(self, message: History, after: float) -> None:
        """Insert what a message knows of the batches between ``after`` and the next known one.

        Raises:
            ValueError: its parts do not fit together.
        """
        self._insert(message, partial(TimeSeries.fill_gap, after=after))

    def prepend(self, message: History) -> None:
        """Insert what a message knows of earlier batches, except for the edits.

        Raises:
            ValueError: its parts do not fit together.
        """
        self._insert(message, TimeSeries.prepend)

    def _insert(self, message: History, insert: Insert) -> None:
        if message.start and self.start:  # the rows of this history count from another moment
            self.scalars.rows[:, SECONDS] += self.start - message.start
        self.start = message.start or self.start
        columns = _columns(message.scalar_names, list(SCALARS))
        _insert_columns(insert, self.scalars, message.scalars, columns)
        self._insert_learning_rates(insert, message.learning_rates)
        for name, sent in message.layers.items():
            if name in self.layers:
                columns = _columns(message.layer_names, self.layer_names)
                _insert_columns(insert, self.layers[name], sent, columns)
        for name, sent in message.metrics.items():
            series = self._metric(name)
            if series is not None and len(sent.steps):
                _insert_columns(insert, series, sent, np.zeros(1, np.int64))
                self._metric_values.setdefault(name, float(series.rows[-1, 0]))

    def _insert_learning_rates(self, insert: Insert, sent: HistorySeries) -> None:
        n_sent = sent.values.shape[1] if sent.values.ndim == 2 else 0
        self._set_rate_count(max(self.learning_rates.width, n_sent))
        source = np.arange(self.learning_rates.width)
        columns = np.where(source < n_sent, source, -1)
        _insert_columns(insert, self.learning_rates, sent, columns)


def _sent(series: TimeSeries) -> HistorySeries:
    return HistorySeries(
        series.steps.astype(np.int64).tolist(),
        series.weights.astype(np.int64).tolist(),
        series.rows.copy(),
    )


def _insert_columns(
    insert: Insert, series: TimeSeries, sent: HistorySeries, source: np.ndarray
) -> None:
    """Insert the columns ``source`` of the rows; NaN for those that are negative."""
    if not sent.steps:
        return
    values = sent.values
    is_table = values.ndim == 2 and len(values) == len(sent.steps) and values.shape[1] > 0
    if not is_table or source.max(initial=-1) >= values.shape[1]:
        raise ValueError(f"values of the shape {values.shape} do not fit {len(sent.steps)} steps")
    rows = np.where(source >= 0, values[:, source], np.nan).astype(np.float32)
    steps, weights = np.array(sent.steps, np.float64), np.array(sent.weights, np.float64)
    insert(series, steps=steps, weights=weights, rows=rows)


def _columns(before: list[str], now: list[str]) -> np.ndarray:
    """Return the index in ``before`` of each name in ``now``, -1 if it is new."""
    index = {name: i for i, name in enumerate(before)}
    return np.array([index.get(name, -1) for name in now], np.int64)


def _epochs_trained(snapshot: Snapshot) -> float:
    """Return the epochs trained so far, with the part of the current one if its length is known."""
    batches = snapshot.batches_per_epoch
    return snapshot.epoch + ((snapshot.batch_index + 1) / batches if batches else 0.0)
