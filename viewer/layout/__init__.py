"""Where everything of the network view lies, in pixels of the view; pure numpy, no Bokeh."""

from __future__ import annotations

from .columns import Column, NodeState
from .network import MANY_ARCS, NetworkLayout, compute_layout, stage_layers

__all__ = ["MANY_ARCS", "Column", "NetworkLayout", "NodeState", "compute_layout", "stage_layers"]
