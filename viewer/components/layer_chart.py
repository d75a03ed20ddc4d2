"""Chart with one curve per layer: the mean of a statistic over its filters."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from bokeh.core.properties import without_property_validation
from bokeh.models import ColumnDataSource, Label, NumeralTickFormatter

from ..rendering.formatting import format_sampling_interval
from ..rendering.frame_codec import PagePartContent
from ..rendering.layer_names import shorten_middle, shortest_unique_names
from ..rendering.palette import FONT, Palette
from ..runs.run_state import RunState
from ..tab.tab_state import TabState
from .chart import color_ramp, make_unsynced_data_range
from .curves import Curve, layer_curves
from .end_labels import FONT_SIZE, CurveEnd, EndLabels
from .time_chart import TimeChart, mask_nonpositive

__all__ = ["LayerChart"]

MAX_NAMED_LAYERS = 8  # with more layers, only the selected one is labeled
MANY_LAYERS = 16  # with more layers, curves are translucent and updated less often
TRANSLUCENT = "80"  # alpha appended to a hex color
SECONDS_PER_LAYER = 0.025  # between updates: a ResNet-50 is redrawn every 1.3 s
MAX_POINTS = 240  # per curve
MAX_LABEL_CHARS = 11
SHARE_STATISTIC = "dead"  # drawn on an axis in percent that starts at zero
MIN_SHARE = 0.1  # the axis of shares ends here or higher


class LayerChart(TimeChart):
    """One of the two layer charts of the page.

    ``source`` holds all curves in one array, which the page converts to Bokeh lines. Bokeh would
    send two message parts per curve, for its steps and its values.

    Args:
        index: 0 for the first layer chart, 1 for the second.
    """

    def __init__(self, tab: TabState, edit_markers: ColumnDataSource, index: int = 0) -> None:
        self.index = index
        self.name = f"layers_{index}"
        super().__init__(tab, edit_markers, y_axis_type="log")
        self.source = PagePartContent(f"curves-{self.name}")
        self.panels = (self.source,)
        # The page fills these curves; syncable=False keeps it from sending them back.
        columns = ("step", "value", "color", "layer", "width", "dash")
        curves = ColumnDataSource(
            {name: [] for name in columns}, name=f"{self.name}_curves", syncable=False
        )
        lines = self.root.multi_line(
            "step", "value", source=curves, line_color="color", line_width="width", line_dash="dash"
        )
        self.add_curve_hover(lines, ("@layer", ""))
        self.labels = EndLabels(self.root)
        self.sampling_label = _make_corner_label()
        self.root.add_layout(self.sampling_label)
        self._drawn_at = 0.0
        self._drawn_settings: tuple[Any, ...] = ()
        self._is_share = False
        self.restyle(tab.palette)

    @property
    def statistic(self) -> str:
        """The statistic that is shown."""
        return self.tab.chart_settings.layer_statistics[self.index]

    def restyle(self, palette: Palette) -> None:
        super().restyle(palette)
        self.sampling_label.text_color = palette.muted
        self._drawn_at = 0.0

    def curves(self, state: RunState) -> list[Curve]:
        return layer_curves(state, self.statistic)

    @without_property_validation
    def update(self) -> bool:
        state, statistic = self.tab.state, self.statistic
        if state is None or state.structure is None:
            return False
        history = state.histories.layers[statistic]
        position = self.tab.selected_position()
        selected = -1 if position is None else position[0]
        compared_run = self.tab.run_selection.compared_run
        settings = (statistic, compared_run, *self.settings_key(), *self.labels.size)
        if not self._is_due(len(state.structure.layers), settings):
            return False
        lengths = (history.length, history.stride, state.structure_revision)
        if not self.has_changed_since_last(
            state, *lengths, selected, *settings, *self.compared_key()
        ):
            return False
        self._drawn_at, self._drawn_settings = time.monotonic(), settings
        self.update_x_axis()
        self.sampling_label.text = format_sampling_interval(state.sampling_interval(statistic))
        self._draw(state, selected)
        return True

    def _is_due(self, n_layers: int, settings: tuple[Any, ...]) -> bool:
        """Return whether to draw: many curves, which take the page a while, not every time."""
        is_recent = time.monotonic() - self._drawn_at < n_layers * SECONDS_PER_LAYER
        return n_layers <= MANY_LAYERS or not is_recent or settings != self._drawn_settings

    def _ramp(self) -> tuple[str, ...]:
        """Return blue colors for forward statistics, orange colors for backward statistics."""
        palette = self.tab.palette
        is_forward = self.statistic in ("activation", SHARE_STATISTIC)
        return palette.activation_curves if is_forward else palette.gradient_curves

    def _set_scale(self, curves: list[Curve]) -> bool:
        """Set the scale and the range of the y axis. Return whether the scale is logarithmic."""
        is_share = self.statistic == SHARE_STATISTIC
        values = [curve.values for curve in curves]
        was_log = self.is_log
        is_log = self.apply_chosen_scale(is_log_by_default=not is_share, values=values)
        if (is_share, is_log) != (self._is_share, was_log):
            self._is_share = is_share
            share_range = make_unsynced_data_range(start=0, default_span=2 * MIN_SHARE)
            self.root.y_range = (
                share_range if is_share and not is_log else make_unsynced_data_range()
            )
            axis = self.root.yaxis[0]
            axis.formatter = (
                NumeralTickFormatter(format="0[.]0 %") if is_share else self.tick_formatter()
            )
        return is_log

    def _draw(self, state: RunState, selected: int) -> None:
        own, other = self.curves(state), self.compared_curves()
        is_log = self._set_scale([*own, *other])
        names = [curve.label for curve in own]
        colors = color_ramp(self._ramp(), len(names))
        many = len(names) > MAX_NAMED_LAYERS
        # Among many curves, the selected one is drawn last, over the others.
        order = sorted(range(len(names)), key=lambda i: many and i == selected)
        alpha = TRANSLUCENT if len(names) > MANY_LAYERS else ""
        steps, values = self._points(state, own, is_log)
        data = {
            "step": steps,
            "value": values[order],
            "color": [colors[i] + ("" if i == selected else alpha) for i in order],
            "layer": [names[i] for i in order],
            "width": [2.4 if i == selected else 1.0 if many else 1.6 for i in order],
        }
        wanted = {name: colors[i] for i, name in enumerate(names) if not many or i == selected}
        compared = self._compared_data([one for one in other if one.label in wanted], is_log)
        if compared:
            compared["color"] = [wanted[name] for name in compared["layer"]]
            data["compared"] = compared
        self.source.data = data
        if len(steps):
            short = shortest_unique_names(names)
            ends = [
                CurveEnd(float(steps[-1]), float(values[i, -1]), text, colors[i])
                for i in range(len(names))
                if (not many or i == selected) and np.isfinite(values[i, -1])
                for text in [shorten_middle(short[i], MAX_LABEL_CHARS)]
            ]
            self._draw_labels(ends, data)

    def _points(
        self, state: RunState, curves: list[Curve], is_log: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return x values (n,) and smoothed values (curves, n) of at most about `MAX_POINTS`."""
        if not curves:
            return np.zeros(0), np.zeros((0, 0))
        values = np.stack([curve.values for curve in curves])
        rows = [self.smooth(row) for row in (mask_nonpositive(values) if is_log else values)]
        stride = max(1, len(curves[0].steps) // MAX_POINTS)
        steps = self.x(state, curves[0].steps[::stride])
        return np.array(steps), np.stack(rows)[:, ::stride].astype(np.float32)

    def _compared_data(self, curves: list[Curve], is_log: bool) -> dict[str, Any]:
        """Return the curves of the run that is laid over this one; empty without any."""
        compared = self.tab.run_selection.compared_state()
        if compared is None or not curves:
            return {}
        steps, values = self._points(compared, curves, is_log)
        layers, widths = [curve.label for curve in curves], [1.4] * len(curves)
        return {"step": steps, "value": values, "color": [], "layer": layers, "width": widths}

    def _draw_labels(self, ends: list[CurveEnd], data: dict[str, Any]) -> None:
        """Write names behind the ends of the curves, also of those of the other run."""
        drawn = [data, data["compared"]] if "compared" in data else [data]
        self.labels.draw(
            ends,
            first_x=float(data["step"][0]),
            y_values=np.concatenate([one["value"].ravel() for one in drawn]),
            is_log=self.is_log,
            last_x=max(float(one["step"][-1]) for one in drawn if len(one["step"])),
            min_y=0.0 if self._is_share and not self.is_log else None,
        )


def _make_corner_label() -> Label:
    return Label(
        x=4, y=2, x_units="screen", y_units="screen", text="",
        text_font_size=FONT_SIZE, text_font=FONT,
    )  # fmt: skip
