"""Layout of the network view: positions in pixels of the view. Pure NumPy, no Bokeh."""

from __future__ import annotations

from .columns import Column, NodeState
from .ends import Ends, EndShape, place_ends
from .network import FRAME_TITLE, NetworkLayout, compute_layout, stage_layers

__all__ = [
    "FRAME_TITLE",
    "Column",
    "EndShape",
    "Ends",
    "NetworkLayout",
    "NodeState",
    "compute_layout",
    "place_ends",
    "stage_layers",
]
