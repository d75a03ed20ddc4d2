"""Whether the network of a run has layers to show."""

from __future__ import annotations

from revacnn_lightning.diagnostics.verdicts import NOTHING_WATCHED

from .tab_state import TabState

__all__ = ["no_layers_reason"]


def no_layers_reason(tab: TabState) -> str:
    """Return why there is no layer to show or to edit; "" if there is one, or it is not known."""
    structure = tab.structure
    if structure is None or structure.layers:
        return ""
    return f"{NOTHING_WATCHED[0].upper()}{NOTHING_WATCHED[1:]}."
