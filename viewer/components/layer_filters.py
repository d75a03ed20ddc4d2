"""The filters of the selected layer: sorted bars, and gradient against activation."""

from __future__ import annotations

import numpy as np
from bokeh.core.properties import without_property_validation
from bokeh.events import Tap
from bokeh.models import ColumnDataSource, Range1d

from ..rendering.palette import Palette
from ..tab.tab_state import TabState
from .chart import Chart, blend, hover
from .network_data import amplitude

__all__ = ["FilterBars", "FilterCloud"]

STEPS = 24


class FilterBars(Chart):
    """One bar per filter, the largest first; a click selects."""

    name = "bars"

    def __init__(self, tab: TabState) -> None:
        super().__init__(tab, None, x_range=Range1d(-0.5, 0.5))
        self.root.xaxis[0].visible = False
        self.source = ColumnDataSource({"rank": [], "value": [], "filter": [], "color": []})
        bars = self.root.vbar(
            "rank", top="value", width=0.8, source=self.source, fill_color="color", line_color=None
        )
        told = ("filter", "@filter"), ("", "@value{0.000e}")
        self.root.add_tools(hover(bars, *told, mode="vline"))
        self.root.on_event(Tap, self._on_tap)
        self._ramp: list[str] = []
        self.restyle(tab.palette)

    def restyle(self, palette: Palette) -> None:
        super().restyle(palette)
        self._ramp = blend(palette.ramp, STEPS)
        self._shown = ()

    @without_property_validation
    def update(self) -> bool:
        state, here, by = self.tab.state, self.tab.selected(), self.tab.sort_by
        if state is None or here is None or by not in self.tab.values():
            return False
        if not self.is_new(state, self.tab.clock(), state.structure_revision, here, by):
            return False
        layer, index = here
        values = np.nan_to_num(self.tab.layer_values(by, layer), posinf=0.0)
        order = np.argsort(-values, kind="stable")
        colours = self._colours(by, values)
        colours[index] = self.tab.palette.selected
        self.source.data = {
            "rank": np.arange(len(order)),
            "value": values[order],
            "filter": order,
            "color": [colours[i] for i in order],
        }
        self.root.x_range.update(start=-0.5, end=len(order) - 0.5)
        return True

    def _colours(self, by: str, values: np.ndarray) -> list[str]:
        if by == "activation":
            return [self.tab.palette.blue] * len(values)
        steps = np.minimum(STEPS - 1, (amplitude(values) * STEPS).astype(int))
        return [self._ramp[step] for step in steps]

    def _on_tap(self, event: Tap) -> None:
        here, order = self.tab.selected(), self.source.data["filter"]
        if here is not None and event.x is not None and len(order):
            rank = int(np.clip(round(event.x), 0, len(order) - 1))
            self.tab.select(here[0], int(order[rank]))
            self.tab.update()


class FilterCloud(Chart):
    """Each filter by its activation and gradient; a click selects the nearest."""

    title = "Gradient over activation"
    name = "cloud"

    def __init__(self, tab: TabState) -> None:
        super().__init__(tab, None, x_axis_type="log", y_axis_type="log")
        self.root.xaxis[0].axis_label = "Σ activation"
        self.root.yaxis[0].axis_label = "mean |∇|"
        names = ("activation", "gradient", "filter", "color")
        self.source = ColumnDataSource({name: [] for name in names})
        self.chosen = ColumnDataSource({"activation": [], "gradient": []})
        dots = self.root.scatter(
            "activation", "gradient", source=self.source, size=6, line_color=None,
            fill_color="color", fill_alpha=0.85,
        )  # fmt: skip
        self._ring = self.root.scatter(
            "activation", "gradient", source=self.chosen, size=12, fill_color=None, line_width=2
        )
        numbers = ("mean |∇|", "@gradient{0.00e}"), ("Σ act", "@activation{0.00e}")
        self.root.add_tools(hover(dots, ("filter", "@filter"), *numbers))
        self.root.on_event(Tap, self._on_tap)
        self._ramp: list[str] = []
        self.restyle(tab.palette)

    def restyle(self, palette: Palette) -> None:
        super().restyle(palette)
        self._ramp = blend(palette.ramp, STEPS)
        self._ring.glyph.line_color = palette.selected
        self._shown = ()

    @without_property_validation
    def update(self) -> bool:
        state, here = self.tab.state, self.tab.selected()
        if (
            state is None
            or here is None
            or not self.is_new(state, self.tab.clock(), state.structure_revision, here)
        ):
            return False
        layer, index = here
        gradient = self.tab.layer_values("gradient", layer)
        activation = self.tab.layer_values("activation", layer)
        there = (gradient > 0) & (activation > 0) & np.isfinite(gradient) & np.isfinite(activation)
        steps = np.minimum(STEPS - 1, (amplitude(gradient) * STEPS).astype(int))
        filters = np.flatnonzero(there)
        self.source.data = {
            "activation": activation[there],
            "gradient": gradient[there],
            "filter": filters,
            "color": [self._ramp[steps[i]] for i in filters],
        }
        inside = bool(there[index]) if index < len(there) else False
        self.chosen.data = {
            "activation": activation[index : index + 1] if inside else [],
            "gradient": gradient[index : index + 1] if inside else [],
        }
        hidden = int((~there).sum())
        silent = f" · {hidden} silent, not shown" if hidden else ""
        self.root.title.text = self.title + silent
        return True

    def _on_tap(self, event: Tap) -> None:
        here, data = self.tab.selected(), self.source.data
        if here is None or event.x is None or event.y is None or not len(data["filter"]):
            return
        if event.x <= 0 or event.y <= 0:
            return
        x, y = np.log(data["activation"]), np.log(data["gradient"])
        spread_x, spread_y = max(float(np.ptp(x)), 1e-9), max(float(np.ptp(y)), 1e-9)
        distance = ((x - np.log(event.x)) / spread_x) ** 2 + ((y - np.log(event.y)) / spread_y) ** 2
        self.tab.select(here[0], int(data["filter"][int(np.argmin(distance))]))
        self.tab.update()
