"""The input that a tab shows on its way through the network."""

from __future__ import annotations

from revacnn_lightning.protocol.inspections import ImagePass

from ..layout.folding import MAX_OPEN_LAYERS
from .tab_state import TabState

__all__ = ["shown_image_pass", "shows_modules"]


def shown_image_pass(tab: TabState) -> ImagePass | None:
    """Return the newest pass of an image through the network.

    Passes are requested while the tab shows the network.
    """
    passes = tab.follower.image_passes
    if tab.main_view != "network" or tab.structure is None:
        return passes.newest
    layer = "" if tab.selection is None else tab.selection.layer
    return passes.mark_visible(tab.follower.layer_details.selected_image(layer))


def shows_modules(tab: TabState) -> bool:
    """Return whether the modules between the layers are marked: at first, in small networks."""
    if tab.shows_modules is not None:
        return tab.shows_modules
    return len(tab.layer_names()) <= MAX_OPEN_LAYERS
