"""The command of the buttons beside a verdict."""

from __future__ import annotations

from revacnn_lightning.protocol.requests import SetGradientClipping

from . import edit_commands as edit
from .command_arguments import CommandArguments
from .tab_state import TabState

__all__ = ["stage_remedy"]

FILTERS_GONE = "These filters no longer exist."
# Restless begins at 30 times the usual update ratio: a tenth of the rate is near the usual one.
LOWER_RATE = 0.1


def stage_remedy(tab: TabState, arguments: CommandArguments) -> None:
    """Stage the remedy of a verdict, or undo the last edit if the option is ``undo``.

    `diagnostics.verdicts.Remedy` lists them.
    """
    layer = tab.layer(arguments.layer)
    if layer is None:
        return
    ids = [id_ for id_ in arguments.ids if id_ in layer.filter_ids]
    if arguments.option in ("reinitialize", "merge", "remove", "split") and not ids:
        tab.edit_queue.error = FILTERS_GONE
    elif arguments.option == "undo":
        edit.undo(tab, arguments)
    elif arguments.option == "freeze":
        edit.stage_layer_freeze_or_unfreeze(tab, arguments)
    elif arguments.option == "lower_rate":
        factor = float(f"{layer.learning_rate_factor * LOWER_RATE:.6g}")
        tab.staging.scale_rate(layer.name, factor)
    elif arguments.option == "clip_gradient" and arguments.value > 0:
        tab.staging.clip(SetGradientClipping(arguments.value))
    elif arguments.option == "add":
        edit.stage_add_best_direction(tab, arguments)
    elif arguments.option == "reinitialize":
        tab.staging.toggle_change("reinitialize", layer.name, ids)
    elif arguments.option == "split" and edit.can_change_width_or_explain(tab, layer):
        for filter_id in ids:
            tab.staging.split(layer.name, filter_id)
    elif arguments.option == "merge" and edit.can_change_width_or_explain(tab, layer):
        edit.toggle_staged_merge_of(tab, layer, ids)
    elif arguments.option == "remove" and edit.can_change_width_or_explain(tab, layer):
        staged = tab.staging.removed_ids(layer.name)
        for filter_id in (id_ for id_ in ids if id_ not in staged):
            tab.staging.toggle_removal(layer.name, filter_id)
