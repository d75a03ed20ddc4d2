"""Charts of the selected filter's gradient and activation over the recorded batches."""

from __future__ import annotations

import numpy as np
from bokeh.core.properties import without_property_validation
from bokeh.models import ColumnDataSource

from ..rendering.palette import Palette
from ..runs.run_state import RunState
from ..tab.tab_state import TabState
from .curves import Curve
from .time_chart import TimeChart, mask_nonpositive

__all__ = ["FilterActivationChart", "FilterGradientChart"]


class FilterHistoryChart(TimeChart):
    """One statistic of the selected filter over the batches, and the mean of its layer."""

    statistic = ""

    def __init__(self, tab: TabState, edit_markers: ColumnDataSource) -> None:
        super().__init__(tab, edit_markers)
        empty = np.zeros(0)
        self.source = ColumnDataSource(
            {"step": empty, "value": empty, "smooth": empty, "layer": empty}
        )
        self._layer_line = self.root.line(
            "step", "layer", source=self.source, line_dash=[4, 3], line_alpha=0.8
        )
        self._raw_line = self.root.line("step", "value", source=self.source, line_alpha=0.35)
        self._smooth_line = self.root.line("step", "smooth", source=self.source, line_width=2)
        self.add_curve_hover(self._smooth_line)
        self.restyle(tab.palette)

    def color(self, palette: Palette) -> str:
        """Return the color of the statistic."""
        raise NotImplementedError

    def restyle(self, palette: Palette) -> None:
        super().restyle(palette)
        self._layer_line.glyph.line_color = palette.muted
        for line in (self._raw_line, self._smooth_line):
            line.glyph.line_color = self.color(palette)

    def curves(self, state: RunState) -> list[Curve]:
        position = self.tab.selected_position()
        if state is not self.tab.state or position is None:
            return []  # filters of two runs have nothing in common
        layer, index = position
        steps = state.histories.filters.steps.copy()
        values = state.filter_history(self.statistic, layer, index).astype(float)
        mean = _layer_mean(state, self.statistic, layer)
        return [Curve(f"filter {index}", steps, values), Curve("mean of the layer", steps, mean)]

    @without_property_validation
    def update(self) -> bool:
        state, position = self.tab.state, self.tab.selected_position()
        if state is None or position is None:
            return False
        history = state.histories.filters
        lengths = (history.length, history.stride, state.structure_revision)
        if not self.has_changed_since_last(state, *lengths, position, *self.settings_key()):
            return False
        self.update_x_axis()
        own, mean = self.curves(state)
        is_log = self.apply_chosen_scale(is_log_by_default=False, values=[own.values, mean.values])
        finite = np.isfinite(own.values)
        values, means = own.values[finite], mean.values[finite]
        if is_log:
            values, means = mask_nonpositive(values), mask_nonpositive(means)
        self.root.title.text = f"Filter {position[1]} · {self.title}"
        self.source.data = {
            "step": self.x(state, own.steps[finite]),
            "value": values,
            "smooth": self.smooth(values),
            "layer": means,
        }
        return True


class FilterGradientChart(FilterHistoryChart):
    """The gradient of the selected filter over the batches."""

    title = "mean |∇|"
    name = "filter_gradient"
    statistic = "gradient"

    def color(self, palette: Palette) -> str:
        return palette.orange


class FilterActivationChart(FilterHistoryChart):
    """The activation of the selected filter over the batches."""

    title = "Σ activation"
    name = "filter_activation"
    statistic = "activation"

    def color(self, palette: Palette) -> str:
        return palette.blue


def _layer_mean(state: RunState, statistic: str, layer: int) -> np.ndarray:
    """Return the mean over the layer's filters for each row, (rows,); NaN without values."""
    start = int(state.offsets[layer]) + (state.n_filters if statistic == "activation" else 0)
    width = int(state.offsets[layer + 1] - state.offsets[layer])
    values = state.histories.filters.rows[:, start : start + width].astype(float)
    finite = np.isfinite(values)
    total = np.where(finite, values, 0).sum(axis=1)
    return np.where(finite.any(axis=1), total / np.maximum(1, finite.sum(axis=1)), np.nan)
