"""Base class and helpers of all charts."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.models import (
    BoxAnnotation,
    ClickPanTool,
    ColumnDataSource,
    CustomJS,
    CustomJSTickFormatter,
    DataRange1d,
    GlyphRenderer,
    HoverTool,
    InlineStyleSheet,
    LinearAxis,
    LinearScale,
    LogAxis,
    LogScale,
    NumeralTickFormatter,
    PanTool,
    WheelZoomTool,
    ZoomInTool,
    ZoomOutTool,
)
from bokeh.plotting import figure

from ..rendering.palette import Palette
from ..tab.tab_state import TabState

__all__ = [
    "Chart",
    "add_zoom_tools",
    "color_ramp",
    "hover_tool",
    "make_unsynced_data_range",
    "moving_average",
    "tooltip_html",
]

TICKS = 4
NO_OUTLINE = ":focus{outline:none!important}"
EDIT_HOVER_PX = 5  # distance from an edit marker at which its tooltip is shown
MAX_EDIT_TOOLTIPS = 3
MAX_TOOLTIPS = 2


class Chart:
    """A titled figure without a toolbar, with markers where the network was edited."""

    title = ""
    name = ""
    source: Any  # holds the shown data in ``source.data``

    def __init__(
        self, tab: TabState, edit_markers: ColumnDataSource | None = None, **options: Any
    ) -> None:
        self.tab = tab
        ranges = {
            axis: make_unsynced_data_range()
            for axis in ("x_range", "y_range")
            if axis not in options
        }
        self.root = figure(
            name=self.name,
            title=self.title,
            sizing_mode="stretch_both",
            tools="",
            toolbar_location=None,
            min_border=4,
            stylesheets=[InlineStyleSheet(css=NO_OUTLINE)],
            **ranges,
            **options,
        )
        self.root.xgrid.visible = False
        for axis in (self.root.xaxis[0], self.root.yaxis[0]):
            axis.ticker.desired_num_ticks = TICKS
        self.root.xaxis[0].formatter = NumeralTickFormatter(format="0.[0]a")
        self.root.yaxis[0].formatter = self.tick_formatter()
        self._future: BoxAnnotation | None = None
        if edit_markers is not None:
            self._add_edit_markers(edit_markers)
        self._shown_key: tuple[Any, ...] = ()

    def _add_edit_markers(self, source: ColumnDataSource) -> None:
        # An annotation to the edge of the plot: a glyph would extend the range of the axis.
        self._future = BoxAnnotation(left=0, fill_alpha=0.7, line_alpha=0, visible=False)
        self.root.add_layout(self._future)
        source.on_change("data", self._dim_future)
        self.root.vspan(
            x="step",
            source=source,
            line_width=1,
            line_color="color",
            line_dash="dash",
            line_alpha="alpha",
            level="underlay",
        )
        # Bokeh hits a span if the pointer is within its line width. In "vline" mode it would hit
        # all spans of the chart, however far away.
        area = self.root.vspan(
            x="step", source=source, line_width=EDIT_HOVER_PX, line_alpha=0, level="underlay"
        )
        # The tooltip of a curve is attached beside its point and drawn over this one.
        self.root.add_tools(
            hover_tool(area, ("@title", ""), max_tooltips=MAX_EDIT_TOOLTIPS, attachment="above")
        )

    def _dim_future(self, _attribute: str, _old: object, markers: dict[str, Any]) -> None:
        """Dim what is newer than the shown past batch."""
        shown = [
            float(at) for at, past in zip(markers["step"], markers["past"], strict=True) if past
        ]
        if self._future is not None:
            self._future.update(visible=bool(shown), left=shown[0] if shown else 0)

    @property
    def is_log(self) -> bool:
        """Whether the y axis is logarithmic."""
        return isinstance(self.root.y_scale, LogScale)

    def tick_formatter(self) -> CustomJSTickFormatter:
        """Return the format of the y axis."""
        arguments = {"plot": self.root, "is_log": self.is_log}
        return CustomJSTickFormatter(code="numbers", args=arguments)  # of chart_functions.js

    def update(self) -> bool:
        """Draw what is new. Return whether anything is."""
        raise NotImplementedError

    def has_changed_since_last(self, *key: Any) -> bool:
        """Return whether the key of the data differs from the last call, and store it."""
        if key == self._shown_key:
            return False
        self._shown_key = key
        return True

    def restyle(self, palette: Palette) -> None:
        """Apply the colors of another theme. Figures get most of theirs from Bokeh's theme."""
        if self._future is not None:
            self._future.fill_color = palette.card

    def set_log_scale(self, is_log: bool) -> None:
        """Use a logarithmic or a linear y axis. Logarithmic requires positive values."""
        if self.is_log == is_log:
            return
        self.root.y_scale = LogScale() if is_log else LinearScale()
        axis = LogAxis() if is_log else LinearAxis()
        axis.ticker.desired_num_ticks = TICKS
        axis.formatter = self.tick_formatter()
        self.root.left = [axis]
        self.root.ygrid[0].axis = axis


def make_unsynced_data_range(**options: Any) -> DataRange1d:
    """Return a range of an axis that fits the data. Only the page knows where it begins and ends.

    With ``syncable=True`` the page would send both ends with each update of a curve: half of all
    that it sends.
    """
    return DataRange1d(syncable=False, **options)


def moving_average(values: np.ndarray, window_share: float) -> np.ndarray:
    """Return the centered moving average of a curve, (n,).

    The window is a share of the length of the curve. Values that are not finite are left out and
    stay as they are.
    """
    if window_share == 0:
        return values
    finite = np.isfinite(values)
    known = values[finite]
    width = max(1, int(window_share * len(known))) | 1
    if width == 1 or len(known) < 3:
        return values
    smooth = values.copy()
    padded = np.pad(known, width // 2, mode="edge")
    smooth[finite] = np.convolve(padded, np.full(width, 1 / width), "valid")
    return smooth


def color_ramp(stops: tuple[str, ...], n_colors: int) -> list[str]:
    """Return ``n_colors`` colors, evenly spaced on a ramp between the hex colors ``stops``."""
    rgb = np.array([[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in stops], float)
    at = np.linspace(0, len(stops) - 1, n_colors) if n_colors > 1 else np.zeros(1)
    mixed = np.stack([np.interp(at, np.arange(len(stops)), rgb[:, c]) for c in range(3)], axis=1)
    return ["#{:02x}{:02x}{:02x}".format(*(round(float(v)) for v in color)) for color in mixed]


def add_zoom_tools(plot: figure) -> None:
    """Let the wheel zoom and a drag move what the axes show; the page uses the tools for its keys.

    On narrow and on touch screens, where a page scrolls, the page switches wheel and drag off.
    """
    wheel, pan = WheelZoomTool(), PanTool()
    plot.add_tools(wheel, pan)
    plot.toolbar.active_scroll, plot.toolbar.active_drag = wheel, pan
    plot.add_tools(ZoomInTool(dimensions="width"), ZoomOutTool(dimensions="width"))
    plot.add_tools(ClickPanTool(direction="west"), ClickPanTool(direction="east"))
    for event in ("doubletap", "rangesupdate"):
        plot.js_on_event(event, CustomJS(code="report"))  # of chart_functions.js


def hover_tool(
    renderer: GlyphRenderer,
    *rows: tuple[str, str],
    max_tooltips: int = MAX_TOOLTIPS,
    **options: Any,
) -> HoverTool:
    """Return a hover tool that shows rows of (label, field) for ``max_tooltips`` glyphs at most."""
    if "limit" in HoverTool.properties():  # since Bokeh 3.8
        options["limit"] = max_tooltips
    return HoverTool(
        renderers=[renderer], tooltips=tooltip_html(*rows), show_arrow=False, **options
    )


def tooltip_html(*rows: tuple[str, str]) -> str:
    """Return the HTML of a tooltip with rows of (label, field).

    `page.css` removes the frame that Bokeh adds.
    """
    style = (
        "font:12px var(--font);color:var(--text);background:var(--raised);border:1px solid "
        "var(--line);border-radius:8px;box-shadow:var(--shadow);padding:6px 10px"
    )
    row = "display:flex;justify-content:space-between;gap:14px;color:var(--muted)"
    number = "color:var(--text);font-variant-numeric:tabular-nums"
    body = "".join(
        f'<div style="{row}">{label}<span style="{number}">{field}</span></div>'
        for label, field in rows
    )
    return f'<div style="{style}">{body}</div>'
