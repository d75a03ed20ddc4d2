"""Chart of the loss, or of another metric that the module logs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from bokeh.core.properties import without_property_validation
from bokeh.models import ColumnDataSource, Legend, LegendItem

from ..rendering.palette import Palette
from ..runs.metric_names import LOSS, families, phase
from ..runs.run_state import RunState
from ..tab.tab_state import TabState
from .chart import VALUE_AND_BATCH, Chart, color_ramp, hover_tool, moving_average

__all__ = ["MetricChart"]

MAX_DOTTED_POINTS = 40  # curves with up to this many points are drawn with dots
MAX_CURVES = 6


class Curve(NamedTuple):
    """A metric over the batches, both arrays (n,)."""

    label: str
    steps: np.ndarray
    values: np.ndarray


class MetricChart(Chart):
    """One line per metric of the selected family. The training loss is also drawn unsmoothed."""

    name = "loss"

    def __init__(self, tab: TabState, edit_markers: ColumnDataSource) -> None:
        super().__init__(tab, edit_markers, y_axis_type="log")
        empty = np.zeros(0)
        self.raw_source = ColumnDataSource({"step": empty, "value": empty})
        self.source = ColumnDataSource({"step": [], "value": [], "color": [], "label": []})
        self.dots = ColumnDataSource({"step": empty, "value": empty, "color": []})
        self._raw_line = self.root.line(
            "step", "value", source=self.raw_source, line_width=1, line_alpha=0.28
        )
        lines = self.root.multi_line(
            "step", "value", source=self.source, line_color="color", line_width=2
        )
        self.root.scatter("step", "value", source=self.dots, color="color", size=4)
        self.root.add_tools(
            hover_tool(lines, ("@label", ""), *VALUE_AND_BATCH, line_policy="nearest")
        )
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
        self._raw_line.glyph.line_color = palette.blue
        self._shown_key = ()

    @without_property_validation
    def update(self) -> bool:
        state = self.tab.state
        if state is None:
            return False
        metric = self.tab.chart_settings.metric
        lengths = [state.histories.metrics[name].length for name in state.histories.metrics]
        key = (
            state,
            state.histories.scalars.length,
            state.histories.scalars.stride,
            metric,
            *lengths,
        )
        if not self.has_changed(*key):
            return False
        raw = _training_loss(state) if metric == LOSS else Curve("", np.zeros(0), np.zeros(0))
        curves = _logged_curves(state, metric)
        if metric == LOSS:
            curves.insert(0, raw._replace(values=moving_average(raw.values)))
        curves = [curve for curve in curves if len(curve.steps)]
        is_positive = all(bool(np.all(curve.values > 0)) for curve in (raw, *curves))
        self.set_log_scale(metric == LOSS and is_positive)
        self.raw_source.data = {"step": raw.steps, "value": raw.values}
        self._draw(curves)
        return True

    def _draw(self, curves: list[Curve]) -> None:
        colors = self._curve_colors(curves)
        self.source.data = {
            "step": [curve.steps for curve in curves],
            "value": [curve.values for curve in curves],
            "color": colors,
            "label": [curve.label for curve in curves],
        }
        dotted = [k for k, curve in enumerate(curves) if len(curve.steps) <= MAX_DOTTED_POINTS]
        empty = [np.zeros(0)]
        self.dots.data = {
            "step": np.concatenate([curves[k].steps for k in dotted] or empty),
            "value": np.concatenate([curves[k].values for k in dotted] or empty),
            "color": [colors[k] for k in dotted for _ in curves[k].steps],
        }

    def _curve_colors(self, curves: list[Curve]) -> list[str]:
        """Return one color per curve: blue for training, orange for validation, others between."""
        palette = self.tab.palette
        others = color_ramp((palette.green, palette.muted), max(1, len(curves)))
        phase_colors = {"train": palette.blue, "val": palette.orange}
        colors: list[str] = []
        for k, curve in enumerate(curves):
            curve_phase = phase(curve.label) or ("train" if k == 0 else "")
            color = phase_colors.get(curve_phase, others[k])
            colors.append(others[k] if color in colors else color)
        return colors


def _training_loss(state: RunState) -> Curve:
    """Return the loss of every recorded batch."""
    loss = state.histories.scalars.rows[:, 0].astype(float)
    finite = np.isfinite(loss)
    return Curve("train", state.histories.scalars.steps[finite].copy(), loss[finite])


def _logged_curves(state: RunState, metric: str) -> list[Curve]:
    """Return the logged metrics of a family, without the training loss.

    A training without a single loss, such as a GAN, logs several: they take its place.
    """
    curves = []
    has_loss = metric == LOSS and len(_training_loss(state).steps) > 0
    for name in _logged_names(state, metric):
        if has_loss and phase(name) in ("", "train"):
            continue
        history = state.histories.metrics[name]
        values = history.rows[:, 0].astype(float)
        finite = np.isfinite(values)
        curves.append(Curve(name, history.steps[finite].copy(), values[finite]))
    return curves[:MAX_CURVES]


def _logged_names(state: RunState, metric: str) -> list[str]:
    """Return the logged metrics of a family; for the loss, if it has none, all named a loss."""
    by_family = families(state.histories.metrics)
    names = by_family.get(metric, [])
    if metric != LOSS or names:
        return names
    losses = [name for key, members in by_family.items() if LOSS in key.lower() for name in members]
    return losses or next((members for members in by_family.values() if members), [])
