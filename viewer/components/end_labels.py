"""Names of curves, written behind their ends instead of in a legend that would cover curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from bokeh.core.properties import value
from bokeh.core.property.descriptors import UnsetValueError
from bokeh.models import ColumnDataSource
from bokeh.plotting import figure

from ..rendering.palette import FONT
from .chart import make_unsynced_data_range
from .label_placement import spread_labels

__all__ = ["CurveEnd", "EndLabels"]

LABEL_HEIGHT = 11.0  # px
CHAR_WIDTH = 6.1  # px, in a wide font
GAP = 8.0  # px, between a curve and its name
MAX_MARGIN = 0.4  # of the plot's width
FONT_SIZE = "9.5px"
PLOT_SIZE = (260.0, 130.0)  # px, until the browser reports the plot's own
RANGE_PADDING = 0.1  # by which Bokeh extends the y axis, as a share of what it spans
LEADER_ALPHA = 0.5


class CurveEnd(NamedTuple):
    """The last point of a curve, and the name to be written beside it."""

    x: float
    y: float
    text: str
    color: str


class EndLabels:
    """The labels of one chart. They determine the range of its x axis, to have room.

    All labels are behind the last end of a curve, so that none lies on another curve. A dotted line
    leads to them from curves that end before, such as those of the validation.

    Attributes:
        source: the labels, with their shift in px from the height at which the curve ends.
    """

    def __init__(self, plot: figure) -> None:
        self._plot = plot
        self.source = ColumnDataSource(_columns([], np.zeros(0)))
        self._extent = ColumnDataSource({"x": [], "y": []})  # first and last x of the axis
        extent = plot.scatter("x", "y", source=self._extent, size=1, alpha=0)
        plot.x_range = make_unsynced_data_range(renderers=[extent], range_padding=0)
        plot.segment(
            "end", "value", "step", "value", source=self.source, line_color="color",
            line_dash="dotted", line_alpha=LEADER_ALPHA,
        )  # fmt: skip
        plot.text(
            "step", "value", text="layer", source=self.source, text_color="color", x_offset=4,
            y_offset="shift", text_font_size=FONT_SIZE, text_font=value(FONT),
            text_baseline="middle",
        )  # fmt: skip

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the plot, px."""
        try:
            known = (float(self._plot.inner_width), float(self._plot.inner_height))
        except UnsetValueError:
            return PLOT_SIZE
        return known if min(known) > 0 else PLOT_SIZE

    def draw(
        self,
        ends: Sequence[CurveEnd],
        first_x: float,
        y_values: np.ndarray,
        *,
        is_log: bool,
        last_x: float | None = None,
        min_y: float | None = None,
    ) -> None:
        """Write the names behind the ends of the curves.

        Args:
            ends: the ends of the curves to name.
            first_x: where the x axis begins.
            y_values: all values that the y axis spans.
            is_log: whether the y axis is logarithmic.
            last_x: where the curves end; None for the last of ``ends``.
            min_y: where the y axis begins; None: at its values.
        """
        last_x = max((end.x for end in ends), default=first_x) if last_x is None else last_x
        self._draw_extent(first_x, last_x, ends, y_values)
        ys = np.array([end.y for end in ends])
        shifts = self.label_shifts(y_values, ys, is_log=is_log, min_y=min_y)
        self.source.data = _columns(ends, shifts, last_x)

    def _draw_extent(
        self, first: float, last: float, ends: Sequence[CurveEnd], values: np.ndarray
    ) -> None:
        """Let the x axis span the curves and the names behind them."""
        pixels = GAP + CHAR_WIDTH * max((len(end.text) for end in ends), default=0)
        share = min(MAX_MARGIN, pixels / self.size[0])
        end = last + ((last - first) or 1.0) * share / (1 - share)
        finite = values[np.isfinite(values)]
        y = float(finite[0]) if len(finite) else np.nan  # any within the y axis
        self._extent.data = {"x": [first, end], "y": [y, y]}

    def label_shifts(
        self,
        y_values: np.ndarray,
        end_values: np.ndarray,
        *,
        is_log: bool,
        min_y: float | None = None,
    ) -> np.ndarray:
        """Return how far below the end of its curve each label is written, in px (labels,).

        ``y_values`` span the axis; ``end_values`` (labels,) are the ends of the curves.
        """
        if not len(end_values):
            return end_values
        if is_log:
            with np.errstate(divide="ignore", invalid="ignore"):
                y_values, end_values = np.log(y_values), np.log(end_values)
        finite, height = y_values[np.isfinite(y_values)], self.size[1]
        if not len(finite):
            return np.zeros(len(end_values))
        bottom, top = _axis_ends(finite, min_y)
        positions = height * (top - end_values) / (top - bottom)
        return spread_labels(positions, LABEL_HEIGHT, height) - positions


def _axis_ends(values: np.ndarray, floor: float | None) -> tuple[float, float]:
    """Return where the y axis of these values begins and ends."""
    low, high = float(values.min()), float(values.max())
    half = (1 + RANGE_PADDING) * (high - low) / 2 or 1.0  # of a single value: in the middle
    middle = (low + high) / 2
    return (middle - half if floor is None else floor), middle + half


def _columns(ends: Sequence[CurveEnd], shifts: np.ndarray, last: float = 0.0) -> dict[str, object]:
    return {
        "step": np.full(len(ends), last),
        "end": np.array([end.x for end in ends], float),
        "value": np.array([end.y for end in ends], float),
        "color": [end.color for end in ends],
        "layer": [end.text for end in ends],
        "shift": shifts,
    }
