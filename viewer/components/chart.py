"""What all small charts share."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.models import (
    ColumnDataSource,
    CustomJSTickFormatter,
    GlyphRenderer,
    HoverTool,
    InlineStyleSheet,
    LinearAxis,
    LinearScale,
    LogAxis,
    LogScale,
    NumeralTickFormatter,
)
from bokeh.plotting import figure

from ..rendering.palette import Palette
from ..tab.tab_state import TabState

__all__ = ["VALUE_AND_BATCH", "Chart", "blend", "hover", "smooth"]

# As many digits as tell neighbouring ticks apart, without an exponent where that stays short.
TICKS = """
    const size = Math.abs(tick)
    if (size == 0) return "0"
    const steps = ticks.slice(1).map((t, i) => Math.abs(t - ticks[i])).filter((s) => s > 0)
    const finest = steps.length ? Math.min(...steps) : size
    const digits = Math.min(8, Math.max(3, Math.ceil(Math.log10(size / finest)) + 1))
    if (size >= 1e-3 && size < 1e4) return String(Number(tick.toPrecision(digits)))
    return tick.toExponential(1).replace(".0e", "e").replace("-", "−")
"""
VALUE_AND_BATCH = (("", "$snap_y"), ("batch", "$snap_x"))  # of a point of a curve
NO_OUTLINE = ":focus{outline:none!important}"


class Chart:
    """A titled figure without tools, with marks where the network was changed."""

    title = ""
    name = ""

    def __init__(
        self, tab: TabState, marks: ColumnDataSource | None = None, **options: Any
    ) -> None:
        self.tab = tab
        self.root = figure(
            name=self.name,
            title=self.title,
            sizing_mode="stretch_both",
            tools="",
            toolbar_location=None,
            min_border=4,
            stylesheets=[InlineStyleSheet(css=NO_OUTLINE)],
            **options,
        )
        self.root.xgrid.visible = False
        for axis in (self.root.xaxis[0], self.root.yaxis[0]):
            axis.ticker.desired_num_ticks = 4
        self.root.xaxis[0].formatter = NumeralTickFormatter(format="0.[0]a")
        self.root.yaxis[0].formatter = CustomJSTickFormatter(code=TICKS)
        if marks is not None:
            drawn = self.root.vspan(
                x="step",
                source=marks,
                line_width=1,
                line_color="color",
                line_dash="dash",
                line_alpha="alpha",
                level="underlay",
            )
            above = {"mode": "vline", "attachment": "above"}  # of what a curve tells beside it
            self.root.add_tools(hover(drawn, ("@title", ""), **above))
        self._shown: tuple[Any, ...] = ()

    def is_new(self, *key: Any) -> bool:
        """Whether this differs from what was shown last."""
        if key == self._shown:
            return False
        self._shown = key
        return True

    def restyle(self, palette: Palette) -> None:
        """Take on the colours of another theme."""

    def use_log_scale(self, wanted: bool) -> None:
        """Logarithmic where all values are positive."""
        is_log = isinstance(self.root.y_scale, LogScale)
        if is_log == wanted:
            return
        axis = LogAxis() if wanted else LinearAxis()
        axis.ticker.desired_num_ticks = 4
        axis.formatter = CustomJSTickFormatter(code=TICKS)
        self.root.y_scale = LogScale() if wanted else LinearScale()
        self.root.left = [axis]
        self.root.ygrid[0].axis = axis


def smooth(values: np.ndarray) -> np.ndarray:
    """Centred moving average over a fortieth of the curve."""
    width = max(1, len(values) // 40) | 1
    if width == 1 or len(values) < 3:
        return values
    padded = np.pad(values, width // 2, mode="edge")
    return np.convolve(padded, np.full(width, 1 / width), "valid")


def blend(stops: tuple[str, ...], n: int) -> list[str]:
    """``n`` colours spread evenly over a ramp of stops."""
    rgb = np.array([[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in stops], float)
    at = np.linspace(0, len(stops) - 1, n) if n > 1 else np.zeros(1)
    mixed = np.stack([np.interp(at, np.arange(len(stops)), rgb[:, c]) for c in range(3)], axis=1)
    return ["#{:02x}{:02x}{:02x}".format(*(round(float(v)) for v in colour)) for colour in mixed]


def hover(renderer: GlyphRenderer, *rows: tuple[str, str], **options: Any) -> HoverTool:
    """Tells rows of (label, field) of what is under the pointer, in the page's look."""
    return HoverTool(renderers=[renderer], tooltips=_tooltip(*rows), show_arrow=False, **options)


def _tooltip(*rows: tuple[str, str]) -> str:
    """HTML of a Bokeh tooltip; `page.css` takes away the frame that Bokeh puts around it."""
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
