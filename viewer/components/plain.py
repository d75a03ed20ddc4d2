"""The network view without glyphs of our own: slower, but nothing of it is private to Bokeh.

What moves and changes is computed in the page (``static/2_plain.js``) from the same numbers, and
written into the columns of these sources.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource
from bokeh.plotting import figure

__all__ = ["PlainDrawing"]

# name: dtype, of the columns that the page fills in
LOOKS = {"alpha": "f4", "line_alpha": "f4", "line_width": "f4"}


class PlainDrawing:
    """Dots, bars and paths as Bokeh's scatter, rect and bezier."""

    def __init__(self) -> None:
        self.nodes = ColumnDataSource(_nodes({}), name="plain_nodes")
        self.paths = ColumnDataSource(_paths({}), name="plain_paths")

    def add_to(self, plot: figure) -> None:
        """Have it drawn by this figure."""
        plot.bezier(
            "x0", "y0", "x1", "y1", "cx0", "y0", "cx1", "y1", source=self.paths,
            line_color="color", line_alpha="line_alpha", line_width="line_width",
        )  # fmt: skip
        # The overlay has a canvas of its own: moving nodes repaint no paths.
        look = {
            "fill_color": "color", "fill_alpha": "alpha", "line_color": "line",
            "line_alpha": "line_alpha", "line_width": "line_width", "level": "overlay",
        }  # fmt: skip
        plot.rect("x", "y", "width", "height", source=self.nodes, **look)
        plot.scatter("x", "y", size="size", source=self.nodes, **look)
        for renderer in plot.renderers:
            renderer.nonselection_glyph = renderer.selection_glyph = None  # not mapped in vain

    def place(self, nodes: Any, flow: Any) -> None:
        """Put everything in its place; the page then gives it colours."""
        self.nodes.data, self.paths.data = _nodes(nodes), _paths(flow)


def _nodes(of: Any) -> dict[str, Any]:
    """``bar`` is positive where a node is a bar of that width and the height ``size``."""
    x, y, bar, size = (np.asarray(of.get(name, []), "f4") for name in ("x", "y", "bar", "size"))
    return {
        "x": x.copy(), "y": y.copy(), "width": bar,
        "height": np.where(bar > 0, size, 0).astype("f4"),
        "size": np.where(bar > 0, 0, size).astype("f4"),
        **_looks(len(x)), "line": ["#000000"] * len(x),
    }  # fmt: skip


def _paths(of: Any) -> dict[str, Any]:
    x0, y0, x1, y1 = (np.asarray(of.get(name, []), "f4") for name in ("x", "y", "x1", "y1"))
    half = (x1 - x0) / 2
    places = {"x0": x0, "y0": y0, "x1": x1, "y1": y1, "cx0": x0 + half, "cx1": x1 - half}
    return {**places, **_looks(len(x0))}


def _looks(n: int) -> dict[str, Any]:
    return {"color": ["#5cb8ff"] * n} | {name: np.zeros(n, kind) for name, kind in LOOKS.items()}
