"""Where everything of the network view lies, in pixels of the view; pure numpy, no Bokeh."""

from __future__ import annotations

from .columns import Column, NodeState
from .network import MANY_ARCS, NetworkLayout, lay_out, stage_of

__all__ = ["MANY_ARCS", "Column", "NetworkLayout", "NodeState", "lay_out", "stage_of"]
