"""Layout of the network view: positions in pixels of the view. Pure NumPy, no Bokeh."""

from __future__ import annotations

from .columns import Column, NodeState
from .input_output import InputOutputDimensions, InputOutputPlacement, place_input_output
from .network import FRAME_TITLE, NetworkLayout, compute_layout, layers_in_stage_of

__all__ = [
    "FRAME_TITLE",
    "Column",
    "InputOutputDimensions",
    "InputOutputPlacement",
    "NetworkLayout",
    "NodeState",
    "compute_layout",
    "layers_in_stage_of",
    "place_input_output",
]
