"""Layout of the network view: positions in pixels of the view. Pure NumPy, no Bokeh."""

from __future__ import annotations

from .columns import Column, NodeState
from .network import NetworkLayout, compute_layout, stage_layers

__all__ = ["Column", "NetworkLayout", "NodeState", "compute_layout", "stage_layers"]
