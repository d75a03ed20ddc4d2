from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.viewer.conftest import InProcessFollower
from tests.viewer.tab.actions import send_command
from viewer.tab.page_link import PageLink
from viewer.tab.tab_state import TabState


@pytest.fixture
def tab(make_follower: Callable[..., InProcessFollower]) -> TabState:
    tab = TabState(make_follower("resnet50"), PageLink())
    tab.update()
    return tab


def selected_layer(tab: TabState) -> str:
    assert tab.selection is not None
    return tab.selection.layer


def test_a_large_network_is_folded_at_first_and_a_small_one_is_not(
    tab: TabState, make_follower: Callable[..., InProcessFollower]
) -> None:
    assert {"layer1.0", "layer4.2"} <= tab.folding.closed
    assert "layer1" not in tab.folding.closed
    small = TabState(make_follower("resnet18"), PageLink())
    small.update()
    assert not small.folding.closed


def test_blocks_open_and_close_by_path(tab: TabState) -> None:
    send_command(tab, "open_block", name="layer2.1")
    assert "layer2.1" not in tab.folding.closed
    send_command(tab, "close_block", name="layer2")
    assert "layer2" in tab.folding.closed
    before = tab.folding.closed
    send_command(tab, "close_block", name="layer9")
    assert tab.folding.closed == before


def test_blocks_open_and_close_around_the_selected_layer(tab: TabState) -> None:
    layer = tab.layer_names().index("layer2.1.conv2")
    send_command(tab, "select_largest_gradient_filter", layer=layer, first=0, last=0)
    send_command(tab, "close_block")
    assert "layer2" in tab.folding.closed
    send_command(tab, "open_block")
    assert "layer2" not in tab.folding.closed
    assert "layer2.1" in tab.folding.closed
    send_command(tab, "open_block")
    assert "layer2.1" not in tab.folding.closed
    send_command(tab, "close_block")
    assert "layer2.1" in tab.folding.closed


def test_enter_opens_the_block_before_it_expands_a_layer(tab: TabState) -> None:
    layer = tab.layer_names().index("layer2.1.conv2")
    send_command(tab, "select_largest_gradient_filter", layer=layer, first=0, last=0)
    send_command(tab, "toggle_layer_expanded")
    assert "layer2.1" not in tab.folding.closed
    assert not tab.expanded_layers
    send_command(tab, "toggle_layer_expanded")
    assert tab.expanded_layers == {"layer2.1.conv2"}


def test_selecting_a_whole_layer_opens_the_blocks_around_it(tab: TabState) -> None:
    names = tab.layer_names()
    send_command(tab, "close_block", name="layer3")
    layer = names.index("layer3.4.conv3")
    send_command(tab, "select_largest_gradient_filter", layer=layer, option="preview")
    assert selected_layer(tab) == "layer3.4.conv3"
    assert tab.folding.is_hidden(layer, names)
    send_command(tab, "select_largest_gradient_filter", layer=layer)
    assert not tab.folding.is_hidden(layer, names)
    assert "layer3.3" in tab.folding.closed


def test_arrow_keys_move_from_column_to_column_and_open_nothing(tab: TabState) -> None:
    before = tab.folding.closed
    send_command(tab, "move_selection", dx=1)
    assert selected_layer(tab) == "layer1.0.conv1"
    send_command(tab, "move_selection", dx=1)
    assert selected_layer(tab) == "layer1.1.conv1"
    send_command(tab, "move_selection", dx=-1)
    assert selected_layer(tab) == "layer1.0.conv1"
    send_command(tab, "move_selection", dx=99)
    assert selected_layer(tab) == "layer4.2.conv1"
    send_command(tab, "move_selection", dx=1)
    assert selected_layer(tab) == "layer4.2.conv1"
    assert tab.folding.closed == before


def test_an_edit_leaves_blocks_as_they_are_and_another_run_starts_again(
    make_follower: Callable[..., InProcessFollower],
) -> None:
    follower = make_follower("resnet50")
    tab = TabState(follower, PageLink())
    tab.update()
    send_command(tab, "open_block", name="layer2.1")
    opened = tab.folding.closed
    assert follower.state is not None
    follower.state.structure_revision += 1
    tab.update()
    assert tab.folding.closed == opened
    tab.run_selection.follower = make_follower("resnet50")
    tab.update()
    assert "layer2.1" in tab.folding.closed
