"""The selected filter's gradient and activation over the recorded batches."""

from __future__ import annotations

import numpy as np
from bokeh.core.properties import without_property_validation
from bokeh.models import ColumnDataSource

from ..rendering.palette import Palette
from ..runs.run_state import RunState
from ..tab.tab_state import TabState
from .chart import Chart, smooth

__all__ = ["FilterActivation", "FilterGradient"]


class FilterHistory(Chart):
    """The filter, raw and smoothed, over the mean of its layer."""

    statistic = ""

    def __init__(self, tab: TabState, marks: ColumnDataSource) -> None:
        super().__init__(tab, marks)
        empty = np.zeros(0)
        self.source = ColumnDataSource(
            {"step": empty, "value": empty, "smooth": empty, "layer": empty}
        )
        self._layer = self.root.line(
            "step", "layer", source=self.source, line_dash=[4, 3], line_alpha=0.8
        )
        self._raw = self.root.line("step", "value", source=self.source, line_alpha=0.35)
        self._line = self.root.line("step", "smooth", source=self.source, line_width=2)
        self.restyle(tab.palette)

    def colour(self, palette: Palette) -> str:
        raise NotImplementedError

    def restyle(self, palette: Palette) -> None:
        super().restyle(palette)
        self._layer.glyph.line_color = palette.muted
        self._raw.glyph.line_color = self._line.glyph.line_color = self.colour(palette)

    @without_property_validation
    def update(self) -> bool:
        state, here = self.tab.state, self.tab.selected()
        if state is None or here is None:
            return False
        if not self.is_new(
            state,
            state.histories.filters.length,
            state.histories.filters.stride,
            state.structure_revision,
            here,
        ):
            return False
        layer, index = here
        values = state.filter_history(self.statistic, layer, index).astype(float)
        mean = _layer_mean(state, self.statistic, layer)
        there = np.isfinite(values)
        self.root.title.text = f"Filter {index} · {self.title}"
        self.source.data = {
            "step": state.histories.filters.steps[there].copy(),
            "value": values[there],
            "smooth": smooth(values[there]),
            "layer": mean[there],
        }
        return True


class FilterGradient(FilterHistory):
    title = "mean |∇|"
    name = "filter_gradient"
    statistic = "gradient"

    def colour(self, palette: Palette) -> str:
        return palette.orange


class FilterActivation(FilterHistory):
    title = "Σ activation"
    name = "filter_activation"
    statistic = "activation"

    def colour(self, palette: Palette) -> str:
        return palette.blue


def _layer_mean(state: RunState, statistic: str, layer: int) -> np.ndarray:
    start = int(state.offsets[layer]) + (state.n_filters if statistic == "activation" else 0)
    width = int(state.offsets[layer + 1] - state.offsets[layer])
    values = state.histories.filters.rows[:, start : start + width].astype(float)
    there = np.isfinite(values)
    total = np.where(there, values, 0).sum(axis=1)
    return np.where(there.any(axis=1), total / np.maximum(1, there.sum(axis=1)), np.nan)
