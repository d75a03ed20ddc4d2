"""Chart of the loss, or of another metric that the module logs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from bokeh.core.properties import without_property_validation
from bokeh.models import ColumnDataSource

from ..rendering.layer_names import shorten_middle
from ..rendering.palette import Palette
from ..runs.metric_names import LOSS, metric_phase
from ..runs.run_state import RunState
from ..tab.tab_state import TabState
from .chart import color_ramp
from .curves import Curve, metric_family_curves, training_loss_curve
from .end_labels import CurveEnd, EndLabels
from .time_chart import TimeChart, mask_nonpositive

__all__ = ["MetricChart"]

MAX_DOTTED_POINTS = 40  # curves with up to this many points are drawn with dots
MAX_LABEL_CHARS = 14


class MetricChart(TimeChart):
    """One line per metric of the selected family. The training loss is also drawn unsmoothed.

    Curves of a second run are dashed, in the colors of the first.
    """

    name = "loss"

    def __init__(self, tab: TabState, edit_markers: ColumnDataSource) -> None:
        super().__init__(tab, edit_markers, y_axis_type="log")
        empty = np.zeros(0)
        self.raw_source = ColumnDataSource({"step": empty, "value": empty})
        columns = ("step", "value", "color", "label", "dash", "run")
        self.source = ColumnDataSource({name: [] for name in columns})
        self.dots = ColumnDataSource({"step": empty, "value": empty, "color": []})
        self._raw_line = self.root.line(
            "step", "value", source=self.raw_source, line_width=1, line_alpha=0.28
        )
        lines = self.root.multi_line(
            "step", "value", source=self.source, line_color="color", line_width=2, line_dash="dash"
        )
        self.root.scatter("step", "value", source=self.dots, color="color", size=4)
        self.add_curve_hover(lines, ("@label", "@run"))
        self.labels = EndLabels(self.root)
        self.restyle(tab.palette)

    def restyle(self, palette: Palette) -> None:
        super().restyle(palette)
        self._raw_line.glyph.line_color = palette.blue

    def curves(self, state: RunState) -> list[Curve]:
        return metric_family_curves(state, self.tab.chart_settings.metric)

    @without_property_validation
    def update(self) -> bool:
        state = self.tab.state
        if state is None:
            return False
        metric = self.tab.chart_settings.metric
        lengths = [one.length for one in state.histories.metrics.values()]
        scalars = state.histories.scalars
        settings = (*self.settings_key(), *self.compared_key(), *self.labels.size)
        if not self.has_changed_since_last(
            state, scalars.length, scalars.stride, metric, *lengths, *settings
        ):
            return False
        self.update_x_axis()
        own, compared = self.curves(state), self.compared_curves()
        values = [curve.values for curve in (*own, *compared)]
        is_positive = all(bool(np.all(one > 0)) for one in values)
        is_log = self.apply_chosen_scale(
            is_log_by_default=metric == LOSS and is_positive, values=values
        )
        self._draw_raw(state, metric, is_log=is_log)
        self._draw(self._placed(state, own, is_log), self._placed_compared(compared, is_log))
        return True

    def _draw_raw(self, state: RunState, metric: str, *, is_log: bool) -> None:
        """Draw the loss of every batch behind its average."""
        raw = training_loss_curve(state)
        if metric != LOSS or self.smoothing == 0:
            raw = raw._replace(steps=np.zeros(0), values=np.zeros(0))
        values = mask_nonpositive(raw.values) if is_log else raw.values
        self.raw_source.data = {"step": self.x(state, raw.steps), "value": values}

    def _placed(self, state: RunState, curves: list[Curve], is_log: bool) -> list[Curve]:
        """Return smoothed curves whose steps are places on the x axis."""
        placed = []
        for curve in curves:
            values = self.smooth(mask_nonpositive(curve.values) if is_log else curve.values)
            placed.append(Curve(curve.label, self.x(state, curve.steps), values))
        return placed

    def _placed_compared(self, curves: list[Curve], is_log: bool) -> list[Curve]:
        compared = self.tab.run_selection.compared_state()
        return [] if compared is None else self._placed(compared, curves, is_log)

    def _draw(self, own: list[Curve], compared: list[Curve]) -> None:
        colors = self._curve_colors(own)
        by_label = {curve.label: color for curve, color in zip(own, colors, strict=True)}
        colors += [by_label.get(curve.label, self.tab.palette.muted) for curve in compared]
        curves, n, m = [*own, *compared], len(own), len(compared)
        selection = self.tab.run_selection
        self.source.data = {
            "step": [curve.steps for curve in curves],
            "value": [curve.values for curve in curves],
            "color": colors,
            "label": [curve.label for curve in curves],
            "dash": ["solid"] * n + ["dashed"] * m,
            "run": [""] * n + [selection.compared_name] * m,
        }
        self._draw_dots(curves, colors)
        self._draw_labels(curves, colors, n)

    def _draw_dots(self, curves: list[Curve], colors: list[str]) -> None:
        dotted = [k for k, curve in enumerate(curves) if len(curve.steps) <= MAX_DOTTED_POINTS]
        empty = [np.zeros(0)]
        self.dots.data = {
            "step": np.concatenate([curves[k].steps for k in dotted] or empty),
            "value": np.concatenate([curves[k].values for k in dotted] or empty),
            "color": [colors[k] for k in dotted for _ in curves[k].steps],
        }

    def _draw_labels(self, curves: list[Curve], colors: list[str], n_own: int) -> None:
        """Write the names at the ends of the curves; those of the other run have a prime."""
        ends = []
        for k, curve in enumerate(curves):
            finite = np.flatnonzero(np.isfinite(curve.values))
            if len(finite):
                text = shorten_middle(curve.label, MAX_LABEL_CHARS) + ("′" if k >= n_own else "")
                last = finite[-1]
                ends.append(
                    CurveEnd(float(curve.steps[last]), float(curve.values[last]), text, colors[k])
                )
        first = min((float(curve.steps[0]) for curve in curves if len(curve.steps)), default=0.0)
        shown = [self.raw_source.data["value"], *(curve.values for curve in curves)]
        self.labels.draw(ends, first, np.concatenate(shown), is_log=self.is_log)

    def _curve_colors(self, curves: Sequence[Curve]) -> list[str]:
        """Return one color per curve: blue for training, orange for validation, others between."""
        palette = self.tab.palette
        others = color_ramp((palette.green, palette.muted), max(1, len(curves)))
        phase_colors = {"train": palette.blue, "val": palette.orange}
        colors: list[str] = []
        for k, curve in enumerate(curves):
            curve_phase = metric_phase(curve.label) or ("train" if k == 0 else "")
            color = phase_colors.get(curve_phase, others[k])
            colors.append(others[k] if color in colors else color)
        return colors
