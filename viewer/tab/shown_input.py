"""The input that a tab shows on its way through the network."""

from __future__ import annotations

from revacnn_lightning.protocol.inspections import ImagePass

from ..layout.folding import MAX_OPEN_LAYERS
from .tab_state import TabState

__all__ = ["request_shown_image_pass", "shows_module_marks"]


def request_shown_image_pass(tab: TabState) -> ImagePass | None:
    """Request passes of the shown image through the network; return the newest pass.

    Nothing is requested while the tab does not show the network.
    """
    passes = tab.follower.image_passes
    if tab.main_view != "network" or tab.structure is None:
        return passes.newest
    layer = "" if tab.selection is None else tab.selection.layer
    return passes.request_newest(tab.follower.layer_details.selected_image(layer))


def shows_module_marks(tab: TabState) -> bool:
    """Return whether the modules between the layers are marked: at first, in small networks."""
    if tab.shows_module_marks is not None:
        return tab.shows_module_marks
    return len(tab.layer_names()) <= MAX_OPEN_LAYERS
