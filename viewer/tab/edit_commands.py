"""Commands that stage changes, or send requests to the training."""

from __future__ import annotations

from typing import get_args

import msgspec
import numpy as np

from revacnn_lightning.client.cheapest_filters import find_cheapest_filters
from revacnn_lightning.protocol.messages import LayerInfo
from revacnn_lightning.protocol.requests import (
    ControlRun,
    SetHyperparameter,
    StartRecording,
    StopRecording,
)

from ..rendering.formatting import format_count
from .command_arguments import CommandArguments
from .least_active import find_least_active_filter
from .staged_change import Block, StagedChange
from .tab_state import TabState

ACTIONS = {
    "pause": "Pause",
    "resume": "Resume",
    "step": "Train one batch",
    "finish_epoch": "Train to the end of the epoch",
    "checkpoint": "Save a checkpoint",
    "stop": "Stop the training",
}
RECORDING_ACTIONS: dict[str, tuple[StartRecording | StopRecording, str]] = {
    "record": (StartRecording(), "Record the run"),
    "stop_recording": (StopRecording(), "End the recording"),
}
NO_PRICES = "The prices of the filters have not arrived yet."
HYPERPARAMETERS = {"lr": "the learning rate", "weight_decay": "the weight decay"}

# Staging. A command that has no effect shows the reason.


def can_change_width_or_explain(tab: TabState, layer: LayerInfo) -> bool:
    """Return whether filters of a layer can be added and removed; if not, show why."""
    tab.edit_queue.error = tab.width_refusal(layer)
    return not tab.edit_queue.error


def toggle_staged_removal(tab: TabState, _: CommandArguments) -> None:
    """Stage the removal of the selected filters, or discard it if all of it is staged."""
    layer = tab.layer(None)
    if layer is None or not can_change_width_or_explain(tab, layer):
        return
    selected, staged = tab.selected_ids(), set(tab.staging.removed_ids(layer.name))
    for filter_id in selected:
        if (filter_id in staged) == staged.issuperset(selected):
            tab.staging.toggle_removal(layer.name, filter_id)


def stage_remove_least_active_filter(tab: TabState, arguments: CommandArguments) -> None:
    """Discard a staged new filter, or stage the removal of the layer's least active filter."""
    layer, structure, state = tab.layer(arguments.layer), tab.structure, tab.state
    if layer is None or structure is None or state is None:
        return
    layer_index = structure.layers.index(layer)
    if can_change_width_or_explain(tab, layer) and not tab.staging.discard_one_added(layer.name):
        staged = tab.staging.removed_ids(layer.name)
        filter_id = find_least_active_filter(state, layer_index, layer, staged)
        if filter_id is not None:
            tab.staging.toggle_removal(layer.name, filter_id)
        elif staged:
            tab.edit_queue.error = f"The removal of all filters of {layer.name} is staged."
        else:
            tab.edit_queue.error = f"The activations of {layer.name} are not known yet."


def stage_remove_cheapest_in_network(tab: TabState, arguments: CommandArguments) -> None:
    """Stage the removal of the ``count`` cheapest filters of all layers without staged removals."""
    structure, state, prices = tab.structure, tab.state, tab.follower.filter_prices.newest
    if structure is None or state is None or prices is None:
        tab.edit_queue.error = NO_PRICES
        return
    staged = [layer.name for layer in structure.layers if tab.staging.removed_ids(layer.name)]
    found = find_cheapest_filters(prices, structure, state.offsets, arguments.count, staged)
    for layer, filter_id in found:
        tab.staging.toggle_removal(layer, filter_id)
    if not found:
        tab.edit_queue.error = "No further filter with a known price can be removed."


def stage_add(tab: TabState, arguments: CommandArguments) -> None:
    """Stage new filters. A single one discards a staged removal instead, if there is one."""
    layer = tab.layer(arguments.layer)
    if layer is None or not can_change_width_or_explain(tab, layer):
        return
    if arguments.count > 1 or not tab.staging.discard_last_removal(layer.name):
        tab.staging.add(layer.name, arguments.count)


def stage_add_best_direction(tab: TabState, arguments: CommandArguments) -> None:
    """Stage a new filter in the direction that lowers the loss fastest."""
    layer = tab.layer(arguments.layer)
    if layer is not None and can_change_width_or_explain(tab, layer):
        tab.staging.add(layer.name, directed=True)


def stage_insert_layer(tab: TabState, arguments: CommandArguments) -> None:
    """Stage a residual block or a convolution after a layer."""
    layer = tab.layer(arguments.layer)
    if layer is not None and arguments.option in get_args(Block):
        tab.staging.insert_layer(layer.name, msgspec.convert(arguments.option, Block))


def stage_remove_layer(tab: TabState, arguments: CommandArguments) -> None:
    """Stage the removal of a layer, or of the block called ``name``."""
    layer = tab.layer(arguments.layer)
    if arguments.name or layer is not None:
        tab.staging.remove_layer(arguments.name or (layer.name if layer is not None else ""))


def stage_layer_freeze_or_unfreeze(tab: TabState, arguments: CommandArguments) -> None:
    """Stage freezing all filters of a layer, or unfreezing them if all of them are frozen."""
    layer = tab.layer(arguments.layer)
    if layer is not None:
        kind = "unfreeze" if len(layer.frozen_filters) == len(layer.filter_ids) else "freeze"
        tab.staging.toggle_change(kind, layer.name, list(layer.filter_ids))


def stage_layer_rate(tab: TabState, arguments: CommandArguments) -> None:
    """Stage ``value`` as the factor of a layer's learning rate; 1 is the full rate."""
    layer = tab.layer(arguments.layer)
    if layer is None:
        return
    if layer.learning_rate_factor != arguments.value:
        tab.staging.scale_rate(layer.name, arguments.value)
    elif not tab.staging.discard_rate(layer.name):
        tab.edit_queue.error = f"{layer.name} trains at {arguments.value:g} × the rate already."


def stage_split(tab: TabState, _: CommandArguments) -> None:
    """Stage the split of each selected filter in two."""
    layer = tab.layer(None)
    if layer is not None and can_change_width_or_explain(tab, layer):
        for filter_id in tab.selected_ids():
            tab.staging.split(layer.name, filter_id)


def toggle_staged_merge(tab: TabState, _: CommandArguments) -> None:
    """Stage merging the selected filters into one, or discard it if it is staged."""
    layer, selected = tab.layer(None), tab.selected_ids()
    if layer is not None and can_change_width_or_explain(tab, layer):
        toggle_staged_merge_of(tab, layer, selected)


def toggle_staged_merge_of(tab: TabState, layer: LayerInfo, ids: list[int]) -> None:
    """Stage the merge of filters. Twins are scaled by how strong each one is."""
    if len(ids) < 2:
        tab.edit_queue.error = "Select two or more filters to merge them."
        return
    indices = [layer.filter_ids.index(id_) for id_ in ids]
    state = tab.state
    found = (
        {} if state is None else state.network_verdicts.merge_scales_of_twins(layer.name, indices)
    )
    scales = {layer.filter_ids[index]: scale for index, scale in found.items()}
    tab.staging.merge(layer.name, ids, scales)


def stage_freeze_or_unfreeze(tab: TabState, _: CommandArguments) -> None:
    """Stage freezing the selected filters, or unfreezing them if all of them are frozen."""
    layer = tab.layer(None)
    if layer is not None:
        frozen = {layer.filter_ids[index] for index in layer.frozen_filters}
        kind = "unfreeze" if frozen.issuperset(tab.selected_ids()) else "freeze"
        tab.staging.toggle_change(kind, layer.name, tab.selected_ids())


def toggle_staged_reinitialization(tab: TabState, _: CommandArguments) -> None:
    """Stage new initial weights for the selected filters, or discard them if staged."""
    layer = tab.layer(None)
    if layer is not None:
        tab.staging.toggle_change("reinitialize", layer.name, tab.selected_ids())


def stage_filter_as_weighted_mean(tab: TabState, arguments: CommandArguments) -> None:
    """Stage setting the first filter of ``ids`` to the weighted mean of the others."""
    layer, ids = tab.layer(None), arguments.ids
    if layer is None or len(ids) < 2:
        return
    weights = np.array(arguments.weights)
    if len(ids) != len(weights) + 1 or not np.isfinite(weights).all():
        return
    if (weights < 0).any() or weights.sum() <= 0 or not set(ids) <= set(layer.filter_ids):
        return
    target, *neighbor_ids = ids
    tab.staging.replace(
        StagedChange(
            layer.name,
            "set",
            [target],
            neighbor_ids=neighbor_ids,
            weights=arguments.weights,
        )
    )


def toggle_confirmed(tab: TabState, arguments: CommandArguments) -> None:
    """Confirm a staged change that changes the function of the network, or unconfirm it."""
    tab.staging.toggle_confirmed(arguments.key)


def discard_staged(tab: TabState, arguments: CommandArguments) -> None:
    """Discard one staged change, or all of them."""
    tab.edit_queue.discard(arguments.key)


# Requests


def apply_staged(tab: TabState, _: CommandArguments) -> None:
    """Send all staged changes to the run."""
    tab.edit_queue.apply_staged()


def undo(tab: TabState, _: CommandArguments) -> None:
    """Request to undo the edits of the last Apply."""
    if tab.structure is not None:
        tab.edit_queue.undo(tab.structure)


def redo(tab: TabState, _: CommandArguments) -> None:
    """Request to redo the edits that were undone last."""
    if tab.structure is not None:
        tab.edit_queue.redo(tab.structure)


def dismiss_reply(tab: TabState, _: CommandArguments) -> None:
    """Hide the reply to the last request."""
    tab.edit_queue.shown_reply = None


def control_run(tab: TabState, arguments: CommandArguments) -> None:
    """Pause or resume the run, let it train some batches, save, record or stop it."""
    if arguments.action in RECORDING_ACTIONS:
        tab.edit_queue.send_control(*RECORDING_ACTIONS[arguments.action])
        return
    title = ACTIONS.get(arguments.action)
    if title is not None:
        if arguments.action == "step" and arguments.batches > 1:
            title = f"Train {format_count(arguments.batches)} batches"
        fields = {
            "type": "ControlRun",
            "action": arguments.action,
            "batches": arguments.batches,
        }
        tab.edit_queue.send_control(msgspec.convert(fields, ControlRun), title)


def set_hyperparameter(tab: TabState, arguments: CommandArguments) -> None:
    """Set the learning rate or the weight decay of a parameter group."""
    title = HYPERPARAMETERS.get(arguments.name)
    if title is not None:
        fields = {
            "optimizer": arguments.optimizer,
            "group": arguments.group,
            "name": arguments.name,
            "value": arguments.value,
        }
        request = msgspec.convert(fields, SetHyperparameter)
        tab.edit_queue.send_hyperparameter(request, f"Set {title} to {arguments.value:g}")
