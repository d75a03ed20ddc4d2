"""The commands that the page sends when something is clicked, typed or dragged."""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from . import automatic_commands as automatic
from . import clipping_commands as clipping
from . import edit_commands as edit
from . import folding_commands as folding
from . import selection_commands as selection
from . import trial_commands as trial
from . import view_commands as view
from .command_arguments import CommandArguments
from .page_link import PageCommand
from .remedy_commands import stage_remedy
from .tab_state import TabState

__all__ = ["CHART_COMMANDS", "COMMANDS", "perform_command"]

log = logging.getLogger(__name__)

Handler = Callable[[TabState, CommandArguments], None]

VIEW_COMMANDS: dict[str, Handler] = {
    "show_run": view.show_run,
    "show_moment": view.show_moment,
    "toggle_playback": view.toggle_playback,
    "go_live": view.go_live,
    "dismiss_alerts": view.dismiss_alerts,
    "hover_filter": view.hover_filter,
    "select_largest_gradient_filter": view.select_largest_gradient_filter,
    "select_filters_by_id": view.select_filters_by_id,
    "move_selection": view.move_selection,
    "select_filters_by_index": selection.select_filters_by_index,
    "select_all_filters": selection.select_all_filters,
    "extend_or_shrink_selection": selection.extend_or_shrink_selection,
    "move_primary": selection.move_primary,
    "toggle_keep_primary_selected": selection.toggle_keep_primary_selected,
    "set_main_view": view.set_main_view,
    "toggle_module_marks": view.toggle_module_marks,
    "toggle_color_by_price": view.toggle_color_by_price,
    "color_nodes_by_class_response": view.color_nodes_by_class_response,
    "set_class_matrix_measure": view.set_class_matrix_measure,
    "set_class_matrix_order": view.set_class_matrix_order,
    "request_growth_gains": view.request_growth_gains,
    "toggle_rank_statistics": view.toggle_rank_statistics,
    "select_verdict_filters": selection.select_verdict_filters,
    "toggle_layer_expanded": folding.toggle_layer_expanded,
    "toggle_stage_layers_expanded": folding.toggle_stage_layers_expanded,
    "open_block": folding.open_block,
    "close_block": folding.close_block,
    "set_pane": view.set_pane,
    "set_projection_method": view.set_projection_method,
    "recompute_projections": view.recompute_projections,
    "step_validation_image": view.step_validation_image,
    "show_batch_image": view.show_batch_image,
    "show_picture": view.show_picture,
    "paint_over_shown_image": view.paint_over_shown_image,
    "restart_activation_maximization": view.restart_activation_maximization,
    "set_volume_slice": view.set_volume_slice,
    "set_kernel_slices": view.set_kernel_slices,
    "set_filter_bar_statistic": view.set_filter_bar_statistic,
    "set_chart": view.set_chart,
    "set_x_axis": view.set_x_axis,
    "set_smoothing": view.set_smoothing,
    "set_y_axis_scale": view.set_y_axis_scale,
    "request_chart_csv": view.request_chart_csv,
    "compare_run": view.compare_run,
    "toggle_confirmed": edit.toggle_confirmed,
    "discard_staged": edit.discard_staged,
    "dismiss_reply": edit.dismiss_reply,
}
# Those that need a run that is still training, and a key that may steer it.
RUN_COMMANDS: dict[str, Handler] = {
    "toggle_staged_removal": edit.toggle_staged_removal,
    "stage_remove_least_active_filter": edit.stage_remove_least_active_filter,
    "stage_remove_cheapest_in_network": edit.stage_remove_cheapest_in_network,
    "stage_remedy": stage_remedy,
    "stage_add": edit.stage_add,
    "stage_add_best_direction": edit.stage_add_best_direction,
    "stage_insert_layer": edit.stage_insert_layer,
    "stage_remove_layer": edit.stage_remove_layer,
    "stage_layer_freeze_or_unfreeze": edit.stage_layer_freeze_or_unfreeze,
    "stage_layer_rate": edit.stage_layer_rate,
    "stage_clipping": clipping.stage_clipping,
    "stage_split": edit.stage_split,
    "toggle_staged_merge": edit.toggle_staged_merge,
    "stage_freeze_or_unfreeze": edit.stage_freeze_or_unfreeze,
    "toggle_staged_reinitialization": edit.toggle_staged_reinitialization,
    "stage_filter_as_weighted_mean": edit.stage_filter_as_weighted_mean,
    "apply_staged": edit.apply_staged,
    "set_trial_batches": trial.set_trial_batches,
    "try_staged": trial.try_staged,
    "keep_trial": trial.keep_trial,
    "discard_trial": trial.discard_trial,
    "undo": edit.undo,
    "redo": edit.redo,
    "control_run": edit.control_run,
    "set_hyperparameter": edit.set_hyperparameter,
    "set_gradient_clipping": clipping.set_gradient_clipping,
    "prune_to": automatic.prune_to,
    "control_pruning": automatic.control_pruning,
    "set_verdict_policy": automatic.set_verdict_policy,
}
COMMANDS = {**VIEW_COMMANDS, **RUN_COMMANDS}
# Those whose effect the charts show immediately.
CHART_COMMANDS = frozenset(
    {"set_chart", "set_x_axis", "set_smoothing", "set_y_axis_scale", "compare_run"}
)


def perform_command(tab: TabState, command: PageCommand) -> None:
    """Perform a command of the page. Unknown commands and invalid arguments have no effect.

    A command that steers the run has no effect after its end, while it is unreachable or for an
    observer; the page then shows why.
    """
    handler = COMMANDS.get(command.name)
    try:
        arguments = msgspec.convert(command.args, CommandArguments, strict=False)
    except msgspec.ValidationError as error:
        log.warning("Ignored a command of the page with invalid arguments: %s", error)
        return
    if handler is None or (tab.structure is None and command.name != "show_run"):
        return
    if command.name != "hover_filter":  # moving the pointer does not dismiss a message
        tab.edit_queue.error = ""
    refusal = tab.steering_refusal() if command.name in RUN_COMMANDS else ""
    if refusal:
        tab.edit_queue.error = refusal
    else:
        handler(tab, arguments)
    tab.revision += 1
    tab.update()
