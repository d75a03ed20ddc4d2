"""The loss over the batches, or any other metric that the module logs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from bokeh.core.properties import without_property_validation
from bokeh.models import ColumnDataSource, Legend, LegendItem

from ..rendering.palette import Palette
from ..runs.metric_names import LOSS, families, phase
from ..runs.run_state import RunState
from ..tab.tab_state import TabState
from .chart import VALUE_AND_BATCH, Chart, blend, hover, smooth

__all__ = ["MetricChart"]

FEW_POINTS = 40  # a curve of so few is drawn with dots
MAX_CURVES = 6


class Curve(NamedTuple):
    """A metric over the batches."""

    label: str
    steps: np.ndarray
    values: np.ndarray


class MetricChart(Chart):
    """One line per metric of the family that was chosen; of the loss, also the raw values."""

    name = "loss"

    def __init__(self, tab: TabState, marks: ColumnDataSource) -> None:
        super().__init__(tab, marks, y_axis_type="log")
        empty = np.zeros(0)
        self.raw = ColumnDataSource({"step": empty, "value": empty})
        self.source = ColumnDataSource({"step": [], "value": [], "color": [], "label": []})
        self.dots = ColumnDataSource({"step": empty, "value": empty, "color": []})
        self._raw = self.root.line("step", "value", source=self.raw, line_width=1, line_alpha=0.28)
        lines = self.root.multi_line(
            "step", "value", source=self.source, line_color="color", line_width=2
        )
        self.root.scatter("step", "value", source=self.dots, color="color", size=4)
        self.root.add_tools(hover(lines, ("@label", ""), *VALUE_AND_BATCH, line_policy="nearest"))
        self.root.add_layout(
            Legend(
                items=[LegendItem(label={"field": "label"}, renderers=[lines])],
                orientation="horizontal",
                location="top_right",
            )
        )
        self.restyle(tab.palette)

    def restyle(self, palette: Palette) -> None:
        super().restyle(palette)
        self._raw.glyph.line_color = palette.blue
        self._shown = ()

    @without_property_validation
    def update(self) -> bool:
        state = self.tab.state
        if state is None:
            return False
        of = self.tab.charts.metric
        lengths = [state.histories.metrics[name].length for name in state.histories.metrics]
        if not self.is_new(
            state, state.histories.scalars.length, state.histories.scalars.stride, of, *lengths
        ):
            return False
        raw = _loss(state) if of == LOSS else Curve("", np.zeros(0), np.zeros(0))
        curves = _curves(state, of)
        if of == LOSS:
            curves.insert(0, raw._replace(values=smooth(raw.values)))
        curves = [curve for curve in curves if len(curve.steps)]
        self.use_log_scale(
            of == LOSS and all(bool(np.all(curve.values > 0)) for curve in (raw, *curves))
        )
        self.raw.data = {"step": raw.steps, "value": raw.values}
        self._draw(curves)
        return True

    def _draw(self, curves: list[Curve]) -> None:
        colours = self._colours(curves)
        self.source.data = {
            "step": [curve.steps for curve in curves],
            "value": [curve.values for curve in curves],
            "color": colours,
            "label": [curve.label for curve in curves],
        }
        few = [k for k, curve in enumerate(curves) if len(curve.steps) <= FEW_POINTS]
        none = [np.zeros(0)]
        self.dots.data = {
            "step": np.concatenate([curves[k].steps for k in few] or none),
            "value": np.concatenate([curves[k].values for k in few] or none),
            "color": [colours[k] for k in few for _ in curves[k].steps],
        }

    def _colours(self, curves: list[Curve]) -> list[str]:
        """Training is blue and validation orange, as everywhere; others are in between."""
        palette = self.tab.palette
        others = blend((palette.green, palette.muted), max(1, len(curves)))
        named = {"train": palette.blue, "val": palette.orange}
        taken: set[str] = set()
        found = []
        for k, curve in enumerate(curves):
            colour = named.get(phase(curve.label) or ("train" if k == 0 else ""), others[k])
            if colour in taken:
                colour = others[k]
            taken.add(colour)
            found.append(colour)
        return found


def _loss(state: RunState) -> Curve:
    loss = state.histories.scalars.rows[:, 0].astype(float)
    there = np.isfinite(loss)
    return Curve("train", state.histories.scalars.steps[there].copy(), loss[there])


def _curves(state: RunState, of: str) -> list[Curve]:
    """The logged metrics of a family. The training's own loss is drawn from every batch."""
    found = []
    for name in families(state.histories.metrics).get(of, []):
        if of == LOSS and phase(name) in ("", "train"):
            continue
        series = state.histories.metrics[name]
        values = series.rows[:, 0].astype(float)
        there = np.isfinite(values)
        found.append(Curve(name, series.steps[there].copy(), values[there]))
    return found[:MAX_CURVES]
