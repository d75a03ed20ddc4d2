"""Where everything of the network view lies, in pixels of the view; pure numpy, no Bokeh."""

from __future__ import annotations

from .columns import Column, State
from .network import MANY_ARCS, NetworkLayout, lay_out, stage_of

__all__ = ["MANY_ARCS", "Column", "NetworkLayout", "State", "lay_out", "stage_of"]
