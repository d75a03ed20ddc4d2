"""Several filters are selected by clicks, a box and keys, in the network and in every view."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.test_page import click_node, nodes, ready
from tests.viewer.processes import server, training

pytestmark = pytest.mark.browser

SELECTED = (
    "revacnn.parts.layer_panel.selected.map((id) => revacnn.views.coefficients.ids.indexOf(id))"
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    runtime = tmp_path_factory.mktemp("selection")
    with training(runtime, "--net", "digits", "--hz", "10"), server(runtime) as address:
        yield address


@pytest.fixture
def page(address: str, open_page: Any) -> Any:
    """Filter 5 of conv2 is selected, and its layer's views are shown."""
    page = ready(open_page(address))
    click_node(page, "conv2", 5)
    page.wait_for_function("revacnn.views.coefficients?.data.layer == 'conv2'")
    return page


def wait_until_selected(page: Any, *filters: int) -> None:
    """Wait until the server has selected these filters, the primary one first."""
    page.wait_for_function(f"(filters) => String({SELECTED}) == String(filters)", arg=filters)


def place(page: Any, layer: str, index: int) -> tuple[float, float]:
    node = nodes(page, layer)[index]
    return node["x"], node["y"]


def test_a_click_with_shift_or_ctrl_replaced_the_selection(page: Any) -> None:
    for key, index in (("Shift", 7), ("Control", 9)):
        page.keyboard.down(key)
        page.mouse.click(*place(page, "conv2", index))
        page.keyboard.up(key)
    wait_until_selected(page, 9, 7, 5)
    expect(page.locator("#filter")).to_have_text("filter 9 and 2 more")
    page.keyboard.press("m")
    page.wait_for_selector("#staging .row[data-plan=planned]")
    expect(page.locator("#staging")).to_contain_text("Merge conv2")
    page.keyboard.press("Escape")
    page.wait_for_selector("#staging", state="hidden")


def test_a_box_selects_the_filters_in_it_and_escape_cancels_it(page: Any) -> None:
    inside = nodes(page, "conv2")[2:6]
    left, right = min(one["x"] for one in inside) - 5, max(one["x"] for one in inside) + 5
    top, bottom = min(one["y"] for one in inside) - 2, max(one["y"] for one in inside) + 2
    expected = [
        node["index"]
        for node in nodes(page, "conv2")
        if left <= node["x"] <= right and top <= node["y"] <= bottom
    ]
    page.mouse.move(left, top)
    page.mouse.down()
    page.mouse.move(right, bottom, steps=5)
    page.wait_for_selector("#node-box:not([hidden])")
    assert len(page.evaluate("revacnn.selection.also")) == len(expected)
    page.keyboard.press("Escape")
    page.wait_for_selector("#node-box", state="hidden")
    page.mouse.up()
    wait_until_selected(page, 5)
    page.mouse.move(left, top)
    page.mouse.down()
    page.mouse.move(right, bottom, steps=5)
    page.mouse.up()
    wait_until_selected(page, *expected)


def test_keys_alone_could_not_select_several_filters(page: Any) -> None:
    for _ in range(2):
        page.keyboard.press("Shift+ArrowDown")
    wait_until_selected(page, 7, 6, 5)
    page.keyboard.press("Shift+ArrowUp")
    wait_until_selected(page, 6, 5)
    for _ in range(3):
        page.keyboard.press("Control+ArrowDown")
    wait_until_selected(page, 9, 6, 5)
    page.keyboard.press("Control+a")
    page.wait_for_function("revacnn.parts.layer_panel.selected.length == 16")


def focus_view(page: Any, pane: str, view: str) -> None:
    """Open a pane and give one of its views the focus. What is hidden yet could not have it."""
    page.click(f"button[data-pane={pane}]")
    page.wait_for_function("(view) => revacnn.views[view]?.count == 16", arg=view)
    canvas = page.locator("#maps" if view == "maps" else f'[data-view="{view}"] canvas')
    expect(canvas).to_be_visible()
    canvas.focus()
    expect(canvas).to_be_focused()


@pytest.mark.parametrize(("pane", "view"), [("layer", "gradients"), ("maps", "maps")])
def test_a_view_with_the_focus_selects_by_keys(page: Any, pane: str, view: str) -> None:
    focus_view(page, pane, view)
    directions = iter(("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"))
    # In one of them, there is another filter. A further step may lead back, and release it.
    while page.evaluate("revacnn.filterSelection.selected.length") == 1:
        page.keyboard.press(f"Shift+{next(directions)}")
    page.wait_for_function("revacnn.parts.layer_panel.selected.length > 1")


def test_extending_the_selection_in_a_circle_released_filters(page: Any) -> None:
    focus_view(page, "maps", "maps")
    page.click("button[data-order=index]")  # the grid remains as it is
    page.focus("#maps")
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        page.keyboard.press(f"Shift+{key}")
    page.wait_for_function("revacnn.parts.layer_panel.selected.length == 4")


@pytest.mark.parametrize(("pane", "view"), [("layer", "gradients"), ("maps", "maps")])
def test_a_view_with_the_focus_zooms_by_keys(page: Any, pane: str, view: str) -> None:
    focus_view(page, pane, view)
    page.keyboard.press("z")
    page.wait_for_function("(view) => revacnn.views[view].zoom > 1", arg=view)
    page.keyboard.press("0")
    page.wait_for_function("(view) => revacnn.views[view].zoom == 1", arg=view)
    assert page.is_hidden("#zoom-out")


def test_the_numbers_of_a_tooltip_did_not_follow_the_newest_batch(page: Any) -> None:
    number = "document.querySelector('#tooltip [data-statistic=gradient] span')?.textContent"
    page.mouse.move(*place(page, "conv2", 3))
    page.wait_for_selector("#tooltip:not([hidden])")
    first = page.evaluate(number)
    page.wait_for_function(f"(first) => {number} != first", arg=first)
    page.mouse.move(5, 5)
    page.wait_for_selector("#tooltip", state="hidden")
    id_ = page.evaluate("revacnn.views.activations.ids[3]")
    x, y = page.evaluate("(id) => revacnn.views.activations.screenPosition(id)", id_)
    page.mouse.move(x, y)
    page.wait_for_selector("#tooltip:not([hidden])")
    page.wait_for_function("revacnn.parts.hovered_filter?.layer == 1")
    first = page.evaluate(number)
    page.wait_for_function(f"(first) => {number} != first", arg=first)


# Whether the tooltip shows the same picture as the thumbnail under the pointer.
SAME_PICTURE = """(id) => {
  const view = revacnn.views.activations, tip = document.querySelector("#tooltip canvas")
  const row = view.rows.get(id), {tiles} = view, {width, height} = tip
  const box = [row % tiles.columns * tiles.width, Math.floor(row / tiles.columns) * tiles.height]
  const canvas = Object.assign(document.createElement("canvas"), {width, height})
  const context = canvas.getContext("2d")
  context.imageSmoothingEnabled = view.isSmooth
  context.drawImage(tiles.canvas, ...box, tiles.width, tiles.height, 0, 0, width, height)
  return canvas.toDataURL() == tip.toDataURL()
}"""


def test_a_tooltip_showed_an_older_picture_than_the_thumbnail(page: Any) -> None:
    id_ = page.evaluate("revacnn.views.activations.ids[3]")
    x, y = page.evaluate("(id) => revacnn.views.activations.screenPosition(id)", id_)
    page.mouse.move(x, y)
    page.wait_for_selector("#tooltip canvas.enlarged")
    shown = page.evaluate("revacnn.views.activations.data.step")
    page.wait_for_function("(step) => revacnn.views.activations.data.step > step", arg=shown)
    assert page.evaluate(SAME_PICTURE, id_)


BOXES = """["network", "plot", "bottom"].map(
  (id) => document.getElementById(id).getBoundingClientRect().toJSON())"""


def test_staged_changes_hid_nodes_of_the_network(address: str, open_page: Any) -> None:
    page = ready(open_page(address))
    page.evaluate(
        "revacnn.sendCommand('select_largest_gradient_filter', {layer: 1, first: 5, last: 5})"
    )
    page.wait_for_function("revacnn.parts.selection.index == 5")
    for change in (
        "toggle_staged_removal",
        "stage_freeze_or_unfreeze",
        "toggle_staged_reinitialization",
        "stage_split",
    ):
        page.evaluate("(change) => revacnn.sendCommand(change)", change)
    page.wait_for_function("document.querySelectorAll('#staging .row').length > 2")
    for width, height in ((1680, 960), (1280, 720), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_function("(width) => innerWidth === width", arg=width)
        # Read in one step: plans that arrive change the height of the bar.
        network, plot, bar = page.evaluate(BOXES)
        assert page.is_visible("#staging")
        assert plot["bottom"] <= bar["top"] + 1
        assert bar["bottom"] <= network["bottom"] + 1
        assert plot["height"] > 150
    page.locator("#staging button.discard").click()
    page.wait_for_selector("#staging", state="hidden")


def test_one_staged_change_does_not_move_the_network(page: Any) -> None:
    page.set_viewport_size({"width": 1680, "height": 960})
    page.wait_for_function("revacnn.parts.network_layout.width > 1000")
    before = page.locator("#plot").bounding_box()
    page.keyboard.press("+")
    page.wait_for_selector("#staging .row[data-plan=planned]")
    assert page.locator("#plot").bounding_box() == before
    page.keyboard.press("Escape")
    page.wait_for_selector("#staging", state="hidden")
