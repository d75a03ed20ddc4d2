"""Layout of the network view: positions in pixels of the view. Pure NumPy, no Bokeh."""

from __future__ import annotations

from .columns import Column, NodeState
from .input_output import InputOutputContent, InputOutputPlacement, place_input_output
from .network import FRAME_TITLE, NetworkLayout, compute_layout, stage_layers

__all__ = [
    "FRAME_TITLE",
    "Column",
    "InputOutputContent",
    "InputOutputPlacement",
    "NetworkLayout",
    "NodeState",
    "compute_layout",
    "place_input_output",
    "stage_layers",
]
