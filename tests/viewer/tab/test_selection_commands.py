from __future__ import annotations

import pytest

from tests.viewer.conftest import InProcessFollower
from tests.viewer.tab.actions import deliver_replies, send_command
from viewer.tab.selection_commands import combine_selections
from viewer.tab.tab_state import TabState

LAYER = 1  # conv2, with 16 filters


def selected(tab: TabState) -> list[int]:
    """Return the indices of the selected filters, the primary one first."""
    layer = tab.layer(None)
    assert layer is not None
    return [layer.filter_ids.index(id_) for id_ in tab.selected_ids()]


@pytest.fixture
def at_5(tab: TabState) -> TabState:
    """Return a tab in which filter 5 of conv2 is selected."""
    send_command(tab, "select_largest_gradient_filter", layer=LAYER, first=5, last=5)
    return tab


def test_a_click_with_shift_replaced_the_selection(at_5: TabState) -> None:
    for filter_ in (7, 9):
        send_command(
            at_5, "select_filters_by_index", layer=LAYER, filters=[filter_], option="toggle"
        )
    assert selected(at_5) == [9, 7, 5]
    send_command(at_5, "select_filters_by_index", layer=LAYER, filters=[7], option="toggle")
    assert selected(at_5) == [9, 5]
    send_command(at_5, "select_largest_gradient_filter", layer=LAYER, first=2, last=2)
    assert selected(at_5) == [2]


def test_a_box_replaces_or_extends_the_selection_within_one_layer(at_5: TabState) -> None:
    send_command(at_5, "select_filters_by_index", layer=LAYER, filters=[1, 2], option="add")
    assert selected(at_5) == [1, 2, 5]
    send_command(at_5, "select_filters_by_index", layer=LAYER, filters=[3, 4, 99, -1], option="set")
    assert selected(at_5) == [3, 4]
    send_command(at_5, "select_filters_by_index", layer=0, filters=[6, 7], option="add")
    assert at_5.selected_position() == (0, 6)
    assert selected(at_5) == [6, 7]
    send_command(at_5, "select_filters_by_index", layer=0, filters=[], option="set")
    assert selected(at_5) == [6, 7]


def test_the_last_selected_filter_is_not_released() -> None:
    assert combine_selections([3], [3], "toggle") == [3]
    assert combine_selections([3, 4], [3, 4], "toggle") == [3, 4]
    assert combine_selections([3, 4], [3, 5], "toggle") == [
        3,
        5,
        3,
        4,
    ]  # repetitions are dropped later


def test_shift_and_an_arrow_select_neighbors_and_the_way_back_releases_them(at_5: TabState) -> None:
    for dy in (1, 1, 1):
        send_command(at_5, "extend_or_shrink_selection", dy=dy)
    assert selected(at_5) == [8, 7, 6, 5]
    send_command(at_5, "extend_or_shrink_selection", dy=-1)
    assert selected(at_5) == [7, 6, 5]
    send_command(at_5, "extend_or_shrink_selection", dy=-10)
    assert sorted(selected(at_5)) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert selected(at_5)[0] == 0
    send_command(at_5, "extend_or_shrink_selection", dy=-1)
    assert len(selected(at_5)) == 8


def test_filters_that_are_not_neighbors_could_not_be_merged_by_keyboard(
    at_5: TabState, follower: InProcessFollower
) -> None:
    for _ in range(4):
        send_command(at_5, "move_primary", dy=1)
    assert selected(at_5) == [9, 5]
    send_command(at_5, "toggle_keep_primary_selected")
    send_command(at_5, "move_primary", dy=1)
    send_command(at_5, "move_primary", dy=1)
    assert selected(at_5) == [11, 9, 5]
    send_command(at_5, "toggle_staged_merge")
    deliver_replies(at_5, follower)
    (change,) = at_5.staging.changes
    assert change.kind == "merge"
    assert len(change.ids) == 3


def test_the_way_back_over_a_selected_filter_keeps_it(at_5: TabState) -> None:
    for dy in (1, 1, -1, -1, -1):
        send_command(at_5, "move_primary", dy=dy)
    assert selected(at_5) == [4, 5]
    send_command(at_5, "move_primary", dy=99)
    send_command(at_5, "move_primary", dy=1)
    assert selected(at_5) == [15, 5]


def test_all_filters_of_the_layer_are_selected_and_the_primary_one_remains(at_5: TabState) -> None:
    send_command(at_5, "select_all_filters")
    assert selected(at_5)[0] == 5
    assert sorted(selected(at_5)) == list(range(16))


def test_several_are_selected_only_where_there_is_a_layer(tab: TabState) -> None:
    tab.selection = None
    for name in (
        "extend_or_shrink_selection",
        "move_primary",
        "select_all_filters",
        "select_filters_by_index",
    ):
        send_command(tab, name, layer=9, dy=1, filters=[0], option="set")
    assert tab.selection is None
