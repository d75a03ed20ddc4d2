"""Commands that change what a tab shows, and send nothing to the training."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np

from revacnn_lightning.protocol.inspection_requests import MAX_PICTURE_SIDE
from revacnn_lightning.protocol.requests import KernelSlice

from ..embedding.projection import METHODS
from .class_view import MEASURES, ORDERS
from .command_arguments import CommandArguments
from .requested_view import PANES
from .selection import FilterReference
from .shown_input import shows_module_marks
from .tab_state import TabState

MAIN_VIEWS = ("network", "table")
FIRST_IMAGE = "The image of the batch is shown; the validation images come after it."
SORT_STATISTICS = ("gradient", "activation")

# Runs and recorded batches


def show_run(tab: TabState, arguments: CommandArguments) -> None:
    """Show the run with the id ``run`` in this tab."""
    tab.run_selection.select(arguments.run)


def show_moment(tab: TabState, arguments: CommandArguments) -> None:
    """Show an earlier batch: the moment ``row`` of the history."""
    if tab.state is not None:
        tab.playback.is_playing = False
        tab.playback.go_to(tab.state, arguments.row)


def toggle_playback(tab: TabState, _: CommandArguments) -> None:
    """Start or stop playing the history of the run."""
    if tab.state is not None:
        tab.playback.toggle_playing(tab.state)


def go_live(tab: TabState, _: CommandArguments) -> None:
    """Show the newest batch, and those that follow."""
    tab.playback.go_live()


def dismiss_alerts(tab: TabState, _: CommandArguments) -> None:
    """Hide the alerts of the run so far."""
    status = None if tab.state is None else tab.state.status
    if status is not None and status.alerts:
        tab.dismissed_alerts = max(alert.time for alert in status.alerts)


# Selection


def hover_filter(tab: TabState, arguments: CommandArguments) -> None:
    """Set the filter under the pointer; without a layer, there is none."""
    layer = tab.layer(arguments.layer) if arguments.layer is not None else None
    if layer is None or not 0 <= arguments.first < len(layer.filter_ids):
        tab.hovered = None
    else:
        tab.hovered = FilterReference(layer.name, layer.filter_ids[arguments.first])


def select_largest_gradient_filter(tab: TabState, arguments: CommandArguments) -> None:
    """Select the filter with the largest gradient in a range, by default in the whole layer.

    The page names a range of one filter to select that one. A whole layer is also shown: the blocks
    around it open, unless the option is ``preview``.
    """
    state, layer = tab.state, -1 if arguments.layer is None else arguments.layer
    if state is None or not 0 <= layer < len(state.offsets) - 1:
        return
    first, last = arguments.first, arguments.last
    values = state.layer_values("gradient", layer)
    if first < 0:
        first, last = 0, int(state.offsets[layer + 1] - state.offsets[layer]) - 1
        if arguments.option != "preview":
            tab.folding.open_around(layer, tab.layer_names())
    candidates = np.nan_to_num(values[first : last + 1])
    tab.select(layer, first + (int(np.argmax(candidates)) if len(candidates) else 0))


def select_filters_by_id(tab: TabState, arguments: CommandArguments) -> None:
    """Select filters of the selected layer by their ids. The first one becomes primary."""
    layer = tab.layer(None)
    if layer is None:
        return
    present = set(layer.filter_ids)
    ids = [id_ for id_ in dict.fromkeys(arguments.ids) if id_ in present]
    if ids:
        tab.select_ids(layer.name, ids)


def move_selection(tab: TabState, arguments: CommandArguments) -> None:
    """Move the selection within its layer, or to the proportional position in another column."""
    position, structure = tab.selected_position(), tab.structure
    if position is None or structure is None:
        return
    layer, index = position
    target = tab.folding.layer_columns_away(layer, arguments.dx, tab.layer_names())
    if target != layer:
        fraction = (index + 0.5) / len(structure.layers[layer].filter_ids)
        index = int(fraction * len(structure.layers[target].filter_ids))
    tab.select(target, index + arguments.dy)


# The network view


def set_main_view(tab: TabState, arguments: CommandArguments) -> None:
    """Show the network, or the table of layers."""
    if arguments.option in MAIN_VIEWS:
        tab.main_view = arguments.option


def toggle_module_marks(tab: TabState, _: CommandArguments) -> None:
    """Show or hide the marks of the modules between the layers."""
    tab.shows_module_marks = not shows_module_marks(tab)


def toggle_color_by_price(tab: TabState, _: CommandArguments) -> None:
    """Color the nodes by the price of their removal, or by their gradient again."""
    tab.shows_prices, tab.class_view.shown = not tab.shows_prices, None


def color_nodes_by_class_response(tab: TabState, arguments: CommandArguments) -> None:
    """Color the nodes by how much they respond to the class ``first``; -1: by their gradient."""
    tab.class_view.shown = arguments.first if arguments.first >= 0 else None
    tab.shows_prices = tab.shows_prices and tab.class_view.shown is None


def set_class_matrix_measure(tab: TabState, arguments: CommandArguments) -> None:
    """Set what the matrix of filters and classes shows."""
    if arguments.option in MEASURES:
        tab.class_view.measure = arguments.option


def set_class_matrix_order(tab: TabState, arguments: CommandArguments) -> None:
    """Set the order of the rows of the matrix of filters and classes."""
    if arguments.option in ORDERS:
        tab.class_view.order = arguments.option


def request_growth_gains(tab: TabState, _: CommandArguments) -> None:
    """Request where one more filter would lower the loss most."""
    tab.follower.growth.request()


def toggle_rank_statistics(tab: TabState, _: CommandArguments) -> None:
    """Show or hide the values of each rank."""
    tab.compares_ranks = not tab.compares_ranks


# The layer panel


def set_pane(tab: TabState, arguments: CommandArguments) -> None:
    """Open a pane of the layer panel."""
    if arguments.option in PANES:
        tab.pane = arguments.option


def set_projection_method(tab: TabState, arguments: CommandArguments) -> None:
    """Set the method that projects the filters of a layer to the plane, such as t-SNE."""
    tab.method = next((one for one in METHODS if one == arguments.option), tab.method)


def recompute_projections(tab: TabState, _: CommandArguments) -> None:
    """Recompute the 2D projections of the filters of the selected layer from scratch."""
    if tab.selection is not None:
        tab.follower.layer_details.projections.recompute(tab.selection.layer, tab.method)


def step_validation_image(tab: TabState, arguments: CommandArguments) -> None:
    """Step through the validation images. The current batch comes before the first image."""
    if tab.selection is not None:
        details = tab.follower.layer_details.request_newest(tab.selection.layer, tab.method)
        shown = -1 if details.image is None else max(-1, details.image)
        image = shown + arguments.dx
        if image < -1:
            tab.edit_queue.error = FIRST_IMAGE
        tab.follower.layer_details.show_image_if_known(
            tab.selection.layer, None if image < 0 else image
        )


def show_batch_image(tab: TabState, _: CommandArguments) -> None:
    """Show the first image of the current training batch."""
    if tab.selection is not None:
        tab.follower.layer_details.request_newest(tab.selection.layer, tab.method)
        tab.follower.layer_details.show_image_if_known(tab.selection.layer, None)


def show_picture(tab: TabState, arguments: CommandArguments) -> None:
    """Use a picture of the user's own as the input of the network: its ``pixels``."""
    shape = (arguments.height, arguments.width, 3)
    is_sized = min(shape) > 0 and max(shape) <= MAX_PICTURE_SIDE
    if is_sized and len(arguments.pixels) == math.prod(shape):
        tab.follower.show_picture(np.frombuffer(arguments.pixels, np.uint8).reshape(shape))


def paint_over_shown_image(tab: TabState, arguments: CommandArguments) -> None:
    """Paint patches over the shown image; without any, show it as it was."""
    tab.follower.paint_image(arguments.patches)


def restart_activation_maximization(tab: TabState, _: CommandArguments) -> None:
    """Optimize the image that activates the selected filter most again, from the beginning."""
    if tab.selection is not None:
        chosen = tab.selection
        tab.follower.inspections.restart_activation_maximization(chosen.layer, chosen.filter_id)


def set_volume_slice(tab: TabState, arguments: CommandArguments) -> None:
    """Set which slice of volumes is shown, from 0 for the first to 1 for the last."""
    if tab.selection is not None and 0 <= arguments.value <= 1:
        tab.follower.layer_details.select_depth(tab.selection.layer, arguments.value)


def set_kernel_slices(tab: TabState, arguments: CommandArguments) -> None:
    """Set which slices represent filters with many input channels."""
    slices = next((one for one in get_args(KernelSlice) if one == arguments.option), None)
    if tab.selection is not None and slices is not None:
        tab.follower.layer_details.select_kernel_slice(tab.selection.layer, slices)


# Charts


def set_filter_bar_statistic(tab: TabState, arguments: CommandArguments) -> None:
    """Set the statistic that the bars of the filters show, by which they are sorted."""
    if arguments.option in SORT_STATISTICS:
        tab.sort_by = arguments.option


def set_chart(tab: TabState, arguments: CommandArguments) -> None:
    """Set what a chart shows."""
    if tab.state is not None:
        tab.chart_settings.set_chart(arguments.chart, arguments.option, tab.state.histories.metrics)


def set_x_axis(tab: TabState, arguments: CommandArguments) -> None:
    """Draw all charts over batches, epochs or time."""
    tab.chart_settings.set_x_axis(arguments.option)


def set_smoothing(tab: TabState, arguments: CommandArguments) -> None:
    """Set how much the curves of a chart are smoothed."""
    tab.chart_settings.set_smoothing(arguments.name, arguments.value)


def set_y_axis_scale(tab: TabState, arguments: CommandArguments) -> None:
    """Set whether the y axis of a chart is linear or logarithmic."""
    tab.chart_settings.set_y_axis_scale(arguments.name, arguments.option)


def request_chart_csv(tab: TabState, arguments: CommandArguments) -> None:
    """Send the curves of a chart as CSV to the page, which saves them."""
    tab.chart_settings.request_chart_csv(arguments.name)


def compare_run(tab: TabState, arguments: CommandArguments) -> None:
    """Draw the curves of another run over those of the shown one; an empty id removes them."""
    tab.run_selection.compare(arguments.run)
