"""Base class of the charts that draw curves over batches, epochs or time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, GlyphRenderer, HoverTool

from ..rendering.palette import Palette
from ..runs.run_state import RunState
from ..tab.chart_settings import XAxis
from ..tab.tab_state import TabState
from .chart import Chart, add_zoom_tools, hover_tool, moving_average, tooltip_html
from .curves import Curve
from .time_axis import style_time_axis, x_tooltip_row, x_values

__all__ = ["TimeChart", "mask_nonpositive"]


class TimeChart(Chart):
    """A chart that zooms and pans, with the tab's choice of x axis, scale and smoothing."""

    def __init__(self, tab: TabState, edit_markers: ColumnDataSource, **options: Any) -> None:
        super().__init__(tab, edit_markers, **options)
        self._hover: HoverTool | None = None
        self._hover_rows: tuple[tuple[str, str], ...] = ()
        self._x_axis: XAxis = "batch"
        add_zoom_tools(self.root)

    def curves(self, state: RunState) -> list[Curve]:
        """Return what the chart shows of a run, as it was recorded."""
        raise NotImplementedError

    def restyle(self, palette: Palette) -> None:
        super().restyle(palette)
        self._shown_key = ()

    def add_curve_hover(self, lines: GlyphRenderer, *rows: tuple[str, str]) -> None:
        """Show rows, the value and the x value of the point nearest to the pointer."""
        self._hover_rows = (*rows, ("", "$snap_y"))
        all_rows = (*self._hover_rows, x_tooltip_row(self._x_axis))
        self._hover = hover_tool(lines, *all_rows, line_policy="nearest")
        self.root.add_tools(self._hover)

    # The tab's settings

    @property
    def smoothing(self) -> float:
        """Width of the moving average, as a share of the curve."""
        return self.tab.chart_settings.smoothing.get(self.name, 0.0)

    def settings_key(self) -> tuple[Any, ...]:
        """Return a key that changes with the settings of this chart."""
        settings = self.tab.chart_settings
        return (settings.x_axis, self.smoothing, settings.scales[self.name])

    def update_x_axis(self) -> None:
        """Adapt ticks and tooltips to the tab's choice of x axis."""
        x_axis = self.tab.chart_settings.x_axis
        if x_axis == self._x_axis:
            return
        self._x_axis = x_axis
        style_time_axis(self.root.xaxis[0], x_axis)
        if self._hover is not None:
            self._hover.tooltips = tooltip_html(*self._hover_rows, x_tooltip_row(x_axis))

    def x(self, state: RunState, steps: np.ndarray) -> np.ndarray:
        """Return the position of each step of a run on the x axis."""
        return x_values(self._x_axis, state, steps)

    def smooth(self, values: np.ndarray) -> np.ndarray:
        """Return a curve with the chart's smoothing."""
        return moving_average(values, self.smoothing)

    def apply_chosen_scale(self, *, is_log_by_default: bool, values: Iterable[np.ndarray]) -> bool:
        """Use the scale that the tab has chosen. Return whether it is logarithmic.

        Without a positive value, it is linear.
        """
        scale = self.tab.chart_settings.scales[self.name]
        is_log = is_log_by_default if scale == "auto" else scale == "log"
        is_log = is_log and any(bool(np.any(one > 0)) for one in values)
        self.set_log_scale(is_log)
        return is_log

    # The other run

    def compared_curves(self) -> list[Curve]:
        """Return the curves of the run that is laid over this one; empty without one."""
        compared = self.tab.run_selection.compared_state()
        return [] if compared is None else self.curves(compared)

    def compared_key(self) -> tuple[Any, ...]:
        """Return a key that changes with the curves of the other run."""
        compared = self.tab.run_selection.compared_state()
        if compared is None:
            return ()
        scalars, layers = compared.histories.scalars, compared.histories.layers["gradient"]
        return (compared, scalars.length, scalars.stride, layers.length, layers.stride)


def mask_nonpositive(values: np.ndarray) -> np.ndarray:
    """Return the values with NaN in place of those that a logarithmic axis cannot show."""
    return np.where(values > 0, values, np.nan)
