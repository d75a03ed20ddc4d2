"""The models of the page that Bokeh does not have. Always imported as ``revacnn_glyphs``.

Bokeh finds an extension's JavaScript by the first part of its models' module name, which must be
importable. This folder is ``viewer.glyphs`` in a clone and ``revacnn_lightning._viewer.glyphs``
in an installed package, so `viewer.glyphs` loads this file under a name of its own.
"""

from __future__ import annotations

from typing import Any as AnyType

from bokeh.core.properties import Bool, Bytes, Int, Nullable, String
from bokeh.events import ModelEvent
from bokeh.model import Model
from bokeh.models.glyphs import Scatter

__all__ = ["Command", "FlowPaths", "JitterScatter", "PageLink"]


class JitterScatter(Scatter):
    """Nodes that move on their own, drawn by a worker: dots, or bars where ``bar`` (px) > 0.

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


class PageLink(Model):
    """What a tab and the server tell each other.

    The server numbers its frames, the page answers with ``seen`` once one has been painted: the
    credit without which nothing more is sent.
    """

    plain = Bool(default=False)  # the network is drawn with Bokeh's own glyphs
    frame = Nullable(Bytes)  # see viewer/rendering/frame_codec.py
    seen = Int(default=-1)  # -1: the page has not come yet
    visible = Bool(default=True)
    theme = String(default="dark")
    width = Int(default=0)  # px, of the network view
    height = Int(default=0)


class Command(ModelEvent):
    """Something was clicked or typed in the page."""

    event_name = "revacnn_command"

    def __init__(
        self, model: Model | None, command: str = "", args: dict[str, AnyType] | None = None
    ) -> None:
        super().__init__(model=model)
        self.command = command
        self.args = args or {}
