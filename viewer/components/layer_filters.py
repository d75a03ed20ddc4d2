"""Charts of the selected layer's filters: sorted bars, and gradient over activation."""

from __future__ import annotations

import numpy as np
from bokeh.core.properties import without_property_validation
from bokeh.events import Tap
from bokeh.models import ColumnDataSource, Range1d

from ..rendering.palette import Palette
from ..tab.tab_state import TabState
from .chart import Chart, add_zoom_tools, color_ramp, hover_tool
from .network_data import normalize_gradients

__all__ = ["FilterBarChart", "FilterScatterChart"]

RAMP_COLORS = 24


class FilterBarChart(Chart):
    """One bar per filter of the layer, the largest first. A click selects a filter."""

    name = "bars"

    def __init__(self, tab: TabState) -> None:
        super().__init__(tab, None, x_range=Range1d(-0.5, 0.5))
        self.root.xaxis[0].visible = False
        self.source = ColumnDataSource({"rank": [], "value": [], "filter": [], "color": []})
        bars = self.root.vbar(
            "rank", top="value", width=0.8, source=self.source, fill_color="color", line_color=None
        )
        rows = ("filter", "@filter"), ("", "@value{0.000e}")
        self.root.add_tools(hover_tool(bars, *rows, max_tooltips=1, mode="vline"))
        self.root.on_event(Tap, self._on_tap)
        self._ramp: list[str] = []
        self.restyle(tab.palette)

    def restyle(self, palette: Palette) -> None:
        super().restyle(palette)
        self._ramp = color_ramp(palette.gradient_ramp, RAMP_COLORS)
        self._shown_key = ()

    @without_property_validation
    def update(self) -> bool:
        tab, state, position = self.tab, self.tab.state, self.tab.selected_position()
        statistic = tab.sort_by
        if state is None or position is None or statistic not in tab.values():
            return False
        key = (state, tab.statistics_key(), state.structure_revision, position, statistic)
        if not self.has_changed_since_last(*key):
            return False
        layer, index = position
        values = np.nan_to_num(tab.layer_values(statistic, layer), posinf=0.0)
        order = np.argsort(-values, kind="stable")
        colors = self._bar_colors(statistic, values)
        colors[index] = tab.palette.selected
        self.source.data = {
            "rank": np.arange(len(order)),
            "value": values[order],
            "filter": order,
            "color": [colors[i] for i in order],
        }
        self.root.x_range.update(start=-0.5, end=len(order) - 0.5)
        return True

    def _bar_colors(self, statistic: str, values: np.ndarray) -> list[str]:
        if statistic == "activation":
            return [self.tab.palette.blue] * len(values)
        return _ramp_colors(self._ramp, values)

    def _on_tap(self, event: Tap) -> None:
        position, order = self.tab.selected_position(), self.source.data["filter"]
        if position is not None and event.x is not None and len(order):
            rank = int(np.clip(round(event.x), 0, len(order) - 1))
            self.tab.select(position[0], int(order[rank]))
            self.tab.update()


class FilterScatterChart(Chart):
    """A dot per filter of the layer at its activation and gradient. A click selects the nearest."""

    title = "Gradient over activation"
    name = "cloud"

    def __init__(self, tab: TabState) -> None:
        super().__init__(tab, None, x_axis_type="log", y_axis_type="log")
        self.root.xaxis[0].axis_label = "Σ activation"
        self.root.yaxis[0].axis_label = "mean |∇|"
        columns = ("activation", "gradient", "filter", "color")
        self.source = ColumnDataSource({name: [] for name in columns})
        self.selected = ColumnDataSource({"activation": [], "gradient": []})
        dots = self.root.scatter(
            "activation", "gradient", source=self.source, size=6, line_color=None,
            fill_color="color", fill_alpha=0.85,
        )  # fmt: skip
        self._ring = self.root.scatter(
            "activation", "gradient", source=self.selected, size=12, fill_color=None, line_width=2
        )
        rows = ("mean |∇|", "@gradient{0.00e}"), ("Σ act", "@activation{0.00e}")
        self.root.add_tools(hover_tool(dots, ("filter", "@filter"), *rows))
        add_zoom_tools(self.root)
        self.root.on_event(Tap, self._on_tap)
        self._ramp: list[str] = []
        self.restyle(tab.palette)

    def restyle(self, palette: Palette) -> None:
        super().restyle(palette)
        self._ramp = color_ramp(palette.gradient_ramp, RAMP_COLORS)
        self._ring.glyph.line_color = palette.selected
        self._shown_key = ()

    @without_property_validation
    def update(self) -> bool:
        tab, state, position = self.tab, self.tab.state, self.tab.selected_position()
        if state is None or position is None:
            return False
        if not self.has_changed_since_last(
            state, tab.statistics_key(), state.structure_revision, position
        ):
            return False
        layer, index = position
        gradient = tab.layer_values("gradient", layer)
        activation = tab.layer_values("activation", layer)
        # Zero and non-finite values have no position on logarithmic axes.
        valid = (gradient > 0) & (activation > 0) & np.isfinite(gradient) & np.isfinite(activation)
        filters, colors = np.flatnonzero(valid), _ramp_colors(self._ramp, gradient)
        self.source.data = {
            "activation": activation[valid],
            "gradient": gradient[valid],
            "filter": filters,
            "color": [colors[i] for i in filters],
        }
        is_shown = index < len(valid) and bool(valid[index])
        self.selected.data = {
            "activation": activation[index : index + 1] if is_shown else [],
            "gradient": gradient[index : index + 1] if is_shown else [],
        }
        self.root.title.text = self.title + _describe_hidden(valid, activation)
        return True

    def _on_tap(self, event: Tap) -> None:
        position, data = self.tab.selected_position(), self.source.data
        if position is None or event.x is None or event.y is None or not len(data["filter"]):
            return
        if event.x <= 0 or event.y <= 0:
            return
        x, y = np.log(data["activation"]), np.log(data["gradient"])
        spread_x, spread_y = max(float(np.ptp(x)), 1e-9), max(float(np.ptp(y)), 1e-9)
        distance = ((x - np.log(event.x)) / spread_x) ** 2 + ((y - np.log(event.y)) / spread_y) ** 2
        self.tab.select(position[0], int(data["filter"][int(np.argmin(distance))]))
        self.tab.update()


def _describe_hidden(valid: np.ndarray, activation: np.ndarray) -> str:
    """Return how many filters the chart does not show, and why."""
    n_silent = int((activation == 0).sum())
    n_others = int((~valid).sum()) - n_silent
    texts = [f"{n_silent} silent in this batch"] if n_silent else []
    texts += [f"{n_others} off the axes"] if n_others else []
    return f" · not shown: {', '.join(texts)}" if texts else ""


def _ramp_colors(ramp: list[str], gradient: np.ndarray) -> list[str]:
    """Return the color of each filter by the magnitude of its gradient (n,)."""
    indices = np.minimum(RAMP_COLORS - 1, (normalize_gradients(gradient) * RAMP_COLORS).astype(int))
    return [ramp[index] for index in indices]
