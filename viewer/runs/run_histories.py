"""Histories of all values in a run's snapshots, each of bounded size."""

from __future__ import annotations

import math

import numpy as np

from revacnn_lightning.protocol.messages import Snapshot

from .history import History, mean_per_segment
from .run_clock import RunClock

__all__ = ["FILTER_STATISTICS", "LAYER_STATISTICS", "RunHistories"]

SCALAR_ROWS = 2048  # more points than a chart has pixels
LAYER_ROWS = 512
FILTER_ROWS = 600
FILTER_BYTES = 48 * 2**20  # limit of the per-filter history
MAX_METRICS = 64
FILTER_STATISTICS = ("gradient", "activation")
LAYER_STATISTICS = ("gradient", "activation", "update_ratio", "dead")


class RunHistories:
    """Histories of scalars, metrics, layers and filters.

    Attributes:
        scalars: loss and batches per second, one column each.
        learning_rates: one column per parameter group.
        metrics: one single-column history per logged metric.
        layers: per statistic in `LAYER_STATISTICS`, the mean over each layer's filters, one column
            per layer. For ``"dead"`` it is the share of dead filters.
        filters: gradient of every filter, then activation of every filter, one column each.
        clock: epoch and time of the steps.
    """

    def __init__(self) -> None:
        self.scalars = History(2, SCALAR_ROWS)
        self.learning_rates = History(1, SCALAR_ROWS)
        self.metrics: dict[str, History] = {}
        self.layers = {name: History(0, LAYER_ROWS) for name in LAYER_STATISTICS}
        self.filters = History(0, 4)
        self.clock = RunClock()
        self._metric_values: dict[str, float] = {}

    def add_scalars(self, snapshot: Snapshot) -> None:
        """Add a snapshot's loss, speed, learning rates and metrics."""
        self.clock.add(snapshot.step, _epochs_trained(snapshot), snapshot.time)
        loss = math.nan if snapshot.loss is None else snapshot.loss
        self.scalars.add(snapshot.step, np.array([loss, snapshot.batches_per_second]))
        self._add_learning_rates(snapshot.step, snapshot.learning_rates)
        self._add_metrics(snapshot.step, snapshot.metrics)

    def add_filters(
        self, step: int, values: dict[str, np.ndarray], dead: np.ndarray, offsets: np.ndarray
    ) -> None:
        """Add the values of every filter, and their mean over each layer.

        Args:
            values: per statistic, (filters,).
            dead: which filters are dead, bool (filters,).
            offsets: index of each layer's first filter, (layers + 1,).
        """
        per_layer = {**values, "dead": dead.astype(np.float32)}
        names = [name for name in self.layers if name in per_layer]
        means = mean_per_segment(np.stack([per_layer[name] for name in names]), offsets)
        for name, row in zip(names, means, strict=True):
            self.layers[name].add(step, row)
        self.filters.add(step, np.concatenate([values[name] for name in FILTER_STATISTICS]))

    def start_filters(self, n_filters: int) -> None:
        """Start the per-filter history with as many rows as fit `FILTER_BYTES`."""
        width = len(FILTER_STATISTICS) * n_filters
        rows = FILTER_BYTES // max(1, 4 * width)
        self.filters = History(width, min(FILTER_ROWS, rows))

    def release_filters(self) -> None:
        """Drop the per-filter history, by far the largest."""
        self.filters = History(0, 4)

    def remap_filters(self, source: np.ndarray) -> None:
        """Reorder the per-filter history after an edit.

        Args:
            source: previous index of each filter, or -1 for new filters, int64 (filters,).
        """
        n_before = self.filters.width // len(FILTER_STATISTICS)
        activation = np.where(source >= 0, source + n_before, -1)
        self.filters.select_columns(np.concatenate([source, activation]))

    def remap_layers(self, before: list[str], now: list[str]) -> None:
        """Reorder the per-layer histories from layer names ``before`` to ``now``."""
        if before == now:
            return
        index = {name: i for i, name in enumerate(before)}
        source = np.array([index.get(name, -1) for name in now], np.int64)
        for history in self.layers.values():
            history.select_columns(source)

    def _add_learning_rates(self, step: int, rates: list[float]) -> None:
        if not rates:
            return
        n_before = self.learning_rates.width
        if len(rates) != n_before:
            source = np.arange(len(rates))
            self.learning_rates.select_columns(np.where(source < n_before, source, -1))
        self.learning_rates.add(step, np.array(rates))

    def _add_metrics(self, step: int, metrics: dict[str, float]) -> None:
        """Add one point per change of a metric: most change once per epoch."""
        for name, value in metrics.items():
            if name not in self.metrics:
                if len(self.metrics) >= MAX_METRICS:
                    continue
                self.metrics[name] = History(1, SCALAR_ROWS)
            if self._metric_values.get(name) != value:
                self._metric_values[name] = value
                self.metrics[name].add(step, np.array([value]))


def _epochs_trained(snapshot: Snapshot) -> float:
    """Return the epochs trained so far, with the part of the current one if its length is known."""
    batches = snapshot.batches_per_epoch
    return snapshot.epoch + ((snapshot.batch_index + 1) / batches if batches else 0.0)
