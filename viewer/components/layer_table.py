"""The table of all layers: shapes, costs, and the newest statistics of each layer's filters."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from bokeh.core.properties import without_property_validation

from revacnn_lightning.history.time_series import mean_per_segment
from revacnn_lightning.protocol.messages import LayerInfo

from ..rendering.frame_codec import PagePartContent
from ..rendering.palette import Palette
from ..runs.run_state import RunState
from ..tab.tab_state import TabState

__all__ = ["LayerTable"]

STATISTICS = ("gradient", "activation", "update_ratio")
NUMBERS_SECONDS = 0.5  # between two updates of the statistics, which a person reads


class LayerTable:
    """The table of all layers with their statistics. It sends nothing while it is closed.

    ``rows`` is what changes with an edit only, ``source`` the statistics.
    """

    def __init__(self, tab: TabState) -> None:
        self.tab = tab
        self.rows = PagePartContent("layer_table")
        self.panels = (self.rows,)  # before the statistics in the frame
        self.root = self.source = PagePartContent("layer_statistics")
        self._shown_rows: tuple[Any, ...] = ()
        self._shown_statistics: tuple[Any, ...] = ()
        self._sent_at = 0.0

    def restyle(self, palette: Palette) -> None:
        """Do nothing: HTML takes its colors from the style sheet."""

    @without_property_validation
    def update(self) -> bool:
        tab, state = self.tab, self.tab.state
        if tab.main_view != "table" or state is None or state.structure is None:
            return False
        rows_key, now = tab.structure_key(), time.monotonic()
        has_new_rows = rows_key != self._shown_rows
        statistics_key = (rows_key, tab.statistics_key())
        is_due = has_new_rows or now - self._sent_at >= NUMBERS_SECONDS
        if statistics_key == self._shown_statistics or not is_due:
            return False
        if has_new_rows:
            self._shown_rows = rows_key
            self.rows.data = {"layers": [_row(layer) for layer in state.structure.layers]}
        self._shown_statistics, self._sent_at = statistics_key, now
        self.source.data = self._statistics(state)
        return True

    def _statistics(self, state: RunState) -> dict[str, np.ndarray]:
        """Return the mean of each statistic over each layer's filters, and how many are dead.

        ``dead`` is missing where it is unknown.
        """
        if not state.n_filters:
            return {}
        offsets, playback, values = state.offsets, self.tab.playback, self.tab.values()
        missing = np.full(state.n_filters, np.nan, np.float32)
        columns = np.stack([values.get(name, missing) for name in STATISTICS])
        means = mean_per_segment(columns, offsets).astype(np.float32)
        statistics = dict(zip(STATISTICS, means, strict=True))
        if not playback.shows_layer_means(state):
            dead = playback.dead_mask(state)
            statistics["dead"] = np.add.reduceat(dead, offsets[:-1], dtype=np.int32)
        return statistics


def _row(layer: LayerInfo) -> dict[str, Any]:
    return {
        "name": layer.name,
        "type": layer.module_type,
        "inputs": layer.in_channels,
        "filters": layer.out_channels,
        "kernel": list(layer.kernel_size),
        "stride": list(layer.stride),
        "groups": layer.groups,
        "output": None if layer.output_size is None else list(layer.output_size),
        "parameters": layer.parameters,
        "macs": layer.macs,
        "frozen": len(layer.frozen_filters),
    }
