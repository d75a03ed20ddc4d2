"""The x axis of charts over batches, epochs or time."""

from __future__ import annotations

import numpy as np
from bokeh.models import (
    AdaptiveTicker,
    BasicTicker,
    CustomJSTickFormatter,
    LinearAxis,
    NumeralTickFormatter,
    TickFormatter,
)

from ..runs.run_state import RunState
from ..tab.chart_settings import XAxis

__all__ = ["style_time_axis", "x_tooltip_row", "x_values"]

TICKS = 4
# Label and field of a tooltip's row for the x value of a point.
X_ROWS: dict[XAxis, tuple[str, str]] = {
    "batch": ("batch", "$snap_x"),
    "epoch": ("epoch", "$snap_x{0.00}"),
    "time": ("time", "$snap_x{00:00:00}"),
}


def x_values(x_axis: XAxis, state: RunState, steps: np.ndarray) -> np.ndarray:
    """Return the position of each step of a run on the x axis, same shape."""
    if x_axis == "epoch":
        return state.histories.clock.epochs(steps)
    if x_axis == "time":
        return state.histories.clock.seconds(steps)
    return steps


def x_tooltip_row(x_axis: XAxis) -> tuple[str, str]:
    """Return the (label, field) of the tooltip row that shows the x value of a point."""
    return X_ROWS[x_axis]


def style_time_axis(axis: LinearAxis, x_axis: XAxis) -> None:
    """Give an x axis the ticks of batches, epochs or time."""
    is_time = x_axis == "time"
    mantissas = [1, 2, 5, 10, 15, 20, 30]
    axis.ticker = AdaptiveTicker(base=60, mantissas=mantissas) if is_time else BasicTicker()
    axis.ticker.desired_num_ticks = TICKS
    if x_axis == "batch":
        axis.ticker.min_interval = 1  # there is nothing between two batches
    axis.formatter = _formatter(x_axis)


def _formatter(x_axis: XAxis) -> TickFormatter:
    if x_axis == "time":
        return CustomJSTickFormatter(code="durations")  # of chart_functions.js
    return NumeralTickFormatter(format="0.[0]a" if x_axis == "batch" else "0.[00]")
