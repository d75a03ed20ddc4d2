"""Where everything of the network view lies, in pixels of the view; pure numpy, no Bokeh."""

from __future__ import annotations

from .columns import Column, State
from .network import NetworkLayout, lay_out, stage_of

__all__ = ["Column", "NetworkLayout", "State", "lay_out", "stage_of"]
