"""Commands that open and close blocks of the network, and expand layers into their filters."""

from __future__ import annotations

from ..layout import layers_in_stage_of
from .command_arguments import CommandArguments
from .tab_state import TabState

__all__ = ["close_block", "open_block", "toggle_layer_expanded", "toggle_stage_layers_expanded"]


def toggle_layer_expanded(tab: TabState, arguments: CommandArguments) -> None:
    """Expand a layer to show all its filters, or collapse it. Open its block if that is closed."""
    layer = tab.layer(arguments.layer)
    if layer is None:
        return
    names = tab.layer_names()
    index = names.index(layer.name)
    if tab.folding.is_hidden(index, names):
        tab.folding.open(index, names)
    else:
        tab.expanded_layers ^= {layer.name}


def open_block(tab: TabState, arguments: CommandArguments) -> None:
    """Open the block called ``name``, or else the one in which the layer is drawn."""
    names, layer = tab.layer_names(), tab.layer(arguments.layer)
    if arguments.name:
        tab.folding.set_closed(arguments.name, names, is_closed=False)
    elif layer is not None and not tab.folding.open(names.index(layer.name), names):
        tab.edit_queue.error = f"{layer.name} is in no closed block."


def close_block(tab: TabState, arguments: CommandArguments) -> None:
    """Close the block called ``name``, or else the innermost open one around the layer."""
    names, layer = tab.layer_names(), tab.layer(arguments.layer)
    if arguments.name:
        tab.folding.set_closed(arguments.name, names, is_closed=True)
    elif layer is not None and not tab.folding.close(names.index(layer.name), names):
        tab.edit_queue.error = f"{layer.name} is in no open block."


def toggle_stage_layers_expanded(tab: TabState, arguments: CommandArguments) -> None:
    """Expand all layers of the layer's stage, or collapse them if all are expanded."""
    layer, structure = tab.layer(arguments.layer), tab.structure
    if layer is not None and structure is not None:
        stage = set(layers_in_stage_of(structure, layer.name))
        if stage <= tab.expanded_layers:
            tab.expanded_layers = tab.expanded_layers - stage
        else:
            tab.expanded_layers = tab.expanded_layers | stage
