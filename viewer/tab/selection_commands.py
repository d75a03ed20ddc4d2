"""Commands that select several filters of a layer."""

from __future__ import annotations

from collections.abc import Sequence

from .command_arguments import CommandArguments
from .tab_state import TabState

__all__ = [
    "extend_or_shrink_selection",
    "move_primary",
    "select_all_filters",
    "select_filters_by_index",
    "select_verdict_filters",
    "toggle_keep_primary_selected",
]


def select_filters_by_index(tab: TabState, arguments: CommandArguments) -> None:
    """Select filters of a layer by their indices; see `combine_selections` for the options."""
    layer = tab.layer(arguments.layer)
    if layer is None:
        return
    ids = [layer.filter_ids[i] for i in arguments.filters if 0 <= i < len(layer.filter_ids)]
    is_same_layer = tab.selection is not None and tab.selection.layer == layer.name
    selected = tab.selected_ids() if is_same_layer else []
    if found := combine_selections(selected, ids, arguments.option):
        tab.select_ids(layer.name, found)


def select_verdict_filters(tab: TabState, arguments: CommandArguments) -> None:
    """Select the filters that a verdict is about, or all of its layer, and show the layer."""
    layer = tab.layer(arguments.layer)
    if layer is None or arguments.layer is None:
        return
    found = [id_ for id_ in arguments.ids if id_ in layer.filter_ids] or list(layer.filter_ids)
    if found:
        tab.folding.open_around(arguments.layer, tab.layer_names())
        tab.select_ids(layer.name, found)


def select_all_filters(tab: TabState, _: CommandArguments) -> None:
    """Select all filters of the selected layer. The primary filter remains the same."""
    layer = tab.layer(None)
    if layer is not None:
        tab.select_ids(layer.name, [*tab.selected_ids(), *layer.filter_ids])


def combine_selections(selected: Sequence[int], ids: Sequence[int], option: str) -> list[int]:
    """Return the ids that are selected after an option is applied, the primary filter first.

    Args:
        selected: the ids that are selected now.
        ids: the ids that were chosen.
        option: ``set`` replaces the selection. ``add`` adds to it. ``toggle`` adds, but deselects
            the filters if all of them are selected. The last filter stays selected.
    """
    if option == "set":
        return list(ids)
    if option == "toggle" and ids and set(ids) <= set(selected):
        return [id_ for id_ in selected if id_ not in set(ids)] or list(selected)
    return [*ids, *selected]


def extend_or_shrink_selection(tab: TabState, arguments: CommandArguments) -> None:
    """Make another filter of the layer primary, and select those between, or deselect them.

    They are deselected if the new primary filter is selected already: the way back.
    """
    position, layer = tab.selected_position(), tab.layer(None)
    if position is None or layer is None:
        return
    index, ids = position[1], layer.filter_ids
    target = max(0, min(index + arguments.dy, len(ids) - 1))
    step = 1 if target > index else -1
    passed = [ids[i] for i in range(index, target, step)]
    selected = tab.selected_ids()
    if target != index and ids[target] in selected:
        tab.select_ids(layer.name, [ids[target], *(i for i in selected if i not in passed)])
    elif target != index:
        tab.select_ids(layer.name, [ids[target], *reversed(passed), *selected])


def move_primary(tab: TabState, arguments: CommandArguments) -> None:
    """Make another filter of the layer primary, and keep the others selected."""
    position, layer = tab.selected_position(), tab.layer(None)
    if position is None or layer is None:
        return
    target = max(0, min(position[1] + arguments.dy, len(layer.filter_ids) - 1))
    others = tab.selected_ids()[1 if tab.is_passing else 0 :]
    primary = layer.filter_ids[target]
    tab.select_ids(layer.name, [primary, *others], is_passing=primary not in others)


def toggle_keep_primary_selected(tab: TabState, _: CommandArguments) -> None:
    """Switch whether the primary filter stays selected when `move_primary` moves on."""
    tab.is_passing = not tab.is_passing
