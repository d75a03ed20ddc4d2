"""Histories of all values in a run's snapshots, each of bounded size."""

from __future__ import annotations

import copy

import numpy as np

from revacnn_lightning.history.run_history import RunHistory
from revacnn_lightning.history.time_series import TimeSeries

from .run_clock import RunClock

__all__ = ["FILTER_STATISTICS", "RunHistoryWithFilters"]

FILTER_ROWS = 600
FILTER_BYTES = 48 * 2**20  # limit of the per-filter history
FILTER_STATISTICS = ("gradient", "activation")


class RunHistoryWithFilters(RunHistory):
    """The history of a run, and that of each filter since the viewer attached.

    Attributes:
        filters: gradient of every filter, then activation of every filter, one column each.
        clock: epoch and time of the steps.
    """

    def __init__(self) -> None:
        super().__init__()
        self.filters = TimeSeries(0, 4)
        self.clock = RunClock(self.scalars)

    def add_filter_values(
        self, step: int, values: dict[str, np.ndarray], dead: np.ndarray | None, offsets: np.ndarray
    ) -> None:
        """Add the values of every filter, and their mean over each layer; see `add_layers`."""
        self.add_layers(step, values, dead, offsets)
        self.filters.add(step, np.concatenate([values[name] for name in FILTER_STATISTICS]))

    def start_filter_history(self, n_filters: int) -> None:
        """Start the per-filter history with as many rows as fit `FILTER_BYTES`."""
        self.filters = TimeSeries(len(FILTER_STATISTICS) * n_filters, FILTER_ROWS, FILTER_BYTES)

    def continue_from(
        self, earlier: RunHistoryWithFilters, first_step: int, source_indices: np.ndarray
    ) -> None:
        """Continue the histories of the run that this one resumes.

        Args:
            earlier: the histories of that run. The per-filter one, by far the largest, is moved.
            first_step: the first batch of this run; those from there on are trained again.
            source_indices: index of each filter in that run, -1 where unknown, int64 (filters,).
        """
        filters = earlier.filters
        earlier.drop_filter_history()
        vars(self).update(copy.deepcopy(vars(earlier)))
        self.clock = RunClock(self.scalars)
        self.drop_from(first_step)
        if filters.width == 0:  # nobody has shown that run for long
            self.start_filter_history(len(source_indices))
            return
        self.filters = filters
        self.filters.drop_from(first_step)
        self.reorder_filter_history(source_indices)

    def drop_filter_history(self) -> None:
        """Drop the per-filter history, by far the largest."""
        self.filters = TimeSeries(0, 4)

    def reorder_filter_history(self, source_indices: np.ndarray) -> None:
        """Reorder the per-filter history after an edit.

        Args:
            source_indices: previous index of each filter, or -1 for new filters, int64 (filters,).
        """
        n_before = self.filters.width // len(FILTER_STATISTICS)
        activation = np.where(source_indices >= 0, source_indices + n_before, -1)
        self.filters.select_columns(np.concatenate([source_indices, activation]))

    # ------------------------------------------------------------------ moments

    @property
    def n_layer_only_moments(self) -> int:
        """Number of moments before the first one for which every filter is known."""
        layers = self.layers[FILTER_STATISTICS[0]]
        if not self.filters.length:
            return layers.length
        return int(np.searchsorted(layers.steps, self.filters.steps[0]))

    def moments(self) -> np.ndarray:
        """Return the steps at which the statistics are known, ascending, float64 (moments,).

        Of the first `n_layer_moments`, only the means of the layers are known.
        """
        earlier = self.layers[FILTER_STATISTICS[0]].steps[: self.n_layer_only_moments]
        return np.concatenate([earlier, self.filters.steps])

    def values_at(self, moment: int, offsets: np.ndarray) -> dict[str, np.ndarray]:
        """Return gradient and activation of every filter at a moment, each (filters,).

        Where only the means of the layers are known, a filter has the mean of its layer. NaN marks
        what did not exist yet.

        Args:
            moment: index in `moments`.
            offsets: index of each layer's first filter, (layers + 1,).
        """
        n_earlier = self.n_layer_only_moments
        if moment >= n_earlier:
            row = self.filters.rows[moment - n_earlier]
            return dict(zip(FILTER_STATISTICS, np.split(row, 2), strict=True))
        widths = np.diff(offsets)
        step = self.layers[FILTER_STATISTICS[0]].steps[moment]
        values = {}
        for name in FILTER_STATISTICS:
            series = self.layers[name]
            row = series.rows[int(np.searchsorted(series.steps, step))]
            values[name] = np.repeat(row, widths)
        return values
