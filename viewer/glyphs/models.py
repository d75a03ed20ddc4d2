"""The models of the page that Bokeh does not have. Always imported as ``revacnn_glyphs``.

Bokeh finds an extension's JavaScript by the first part of its models' module name, which must be
importable. This folder is ``viewer.glyphs`` in a clone and ``revacnn_lightning._viewer.glyphs``
in an installed package, so `viewer.glyphs` loads this file under a name of its own.
"""

from __future__ import annotations

from typing import Any as AnyType

from bokeh.core.properties import Any, Bool, Dict, Float, Instance, Int, List, String
from bokeh.events import ModelEvent
from bokeh.model import Model
from bokeh.models.glyphs import Scatter

__all__ = ["Command", "FlowPaths", "JitterScatter", "PageLink", "Panel", "Sprites"]


class JitterScatter(Scatter):
    """Nodes that move on their own: dots, or bars where ``bar`` (px) is positive.

    Columns besides ``x``, ``y`` and ``size``: ``bar`` and ``phase``. The panel ``numbers`` has the
    rest: ``amp`` (0 to 1: how strongly the node moves, and its colour), ``state`` (see
    `viewer.layout.State`).
    """


class FlowPaths(Scatter):
    """Curves from (``x``, ``y``) to (``x1``, ``y1``), drawn by a worker below the plot.

    Columns besides these: ``size`` (the same for all: a factor on the thickness), ``first`` and
    ``last`` (the nodes a path stands for). The panel ``strokes`` has the rest: ``weight`` (0 to 1:
    thickness) and ``staged`` (1: of a node that is to be removed).
    """


class Panel(Model):
    """A part of the page that is plain HTML: ``static/page.js`` draws ``data`` into it."""

    part = String()
    data = Dict(String, Any)


class Sprites(Panel):
    """Pictures of filters, to be drawn wherever ``part`` says.

    ``data`` is one message, as each property is sent by itself: words, and arrays with one row
    per filter. ``ids`` float64 (n,); ``places`` float32 (n, 2), where each stands, NaN if nowhere;
    ``odd`` uint8 (n,), `Oddity`; ``amp`` float32 (n,), gradient, 0 to 1; ``values`` float32 (n, 2),
    gradient and activation as they are; ``indices`` int32 (n,). It is set after ``atlas``.
    """

    atlas = Any()  # uint8 (n, h, w), levels, or (n, h, w, 3), red, green, blue; sent when new


class PageLink(Model):
    """What a tab and the server tell each other besides data.

    The server counts ``sent`` up with every frame, the page answers with ``seen`` once it has
    been painted: the credit without which nothing more is sent.
    """

    plain = Bool(default=False)  # the network is drawn with Bokeh's own glyphs
    sent = Int(default=0)
    seen = Int(default=0)
    # Of the newest numbers sent: when they were published, read, and sent. Unix time.
    stamps = List(Float, default=[])
    visible = Bool(default=True)
    theme = String(default="dark")
    width = Int(default=0)  # px, of the network view
    height = Int(default=0)
    panels = List(Instance(Panel), default=[])


class Command(ModelEvent):
    """Something was clicked or typed in the page."""

    event_name = "revacnn_command"

    def __init__(
        self, model: Model | None, command: str = "", args: dict[str, AnyType] | None = None
    ) -> None:
        super().__init__(model=model)
        self.command = command
        self.args = args or {}
