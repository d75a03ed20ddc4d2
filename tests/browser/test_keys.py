"""Everything can be done by keys, and the key sheet lists them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.test_page import click_node, ready, width, with_charts
from tests.viewer.processes import server, training

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    runtime = tmp_path_factory.mktemp("keys")
    with training(runtime, "--net", "digits"), server(runtime) as address:
        yield address


def test_the_key_sheet_lists_the_keys_and_escape_closes_it(address: str, open_page: Any) -> None:
    page = ready(open_page(address))
    page.keyboard.press("?")
    page.wait_for_selector("#keys[open]")
    text = page.inner_text("#keys")
    for words in ("zoom in, zoom out", "freeze, unfreeze", "pause before the next batch", "apply"):
        assert words in text
    page.keyboard.press("Delete")  # the page behind the sheet receives no keys
    page.keyboard.press("Escape")
    page.wait_for_selector("#keys:not([open])", state="hidden")
    assert page.is_hidden("#staging")
    page.click("#help")
    page.wait_for_selector("#keys[open]")


def test_keys_alone_change_a_filter(address: str, open_page: Any) -> None:
    page = ready(open_page(address))
    before = width(page, "conv2")
    page.keyboard.press("/")
    page.keyboard.type("conv2")
    page.keyboard.press("Enter")
    page.wait_for_function("revacnn.parts.selection_panel.layer == 'conv2'")
    page.keyboard.press("f")
    page.wait_for_selector("#staging .row[data-plan=planned]")
    expect(page.locator("#staging")).to_contain_text("Freeze conv2")
    page.keyboard.press("Escape")
    page.wait_for_selector("#staging", state="hidden")
    page.keyboard.press("+")
    page.wait_for_selector("#staging .row[data-plan=planned]")
    page.wait_for_selector("#staging button.apply[aria-disabled=false]")
    page.keyboard.press("a")
    page.wait_for_function("(n) => revacnn.nodes('conv2').length == n", arg=before + 1)
    page.keyboard.press("u")
    page.wait_for_function("(n) => revacnn.nodes('conv2').length == n", arg=before)


ALT_GRAPH = """() => document.body.dispatchEvent(new KeyboardEvent("keydown", {
  key: "[", ctrlKey: true, altKey: true, modifierAltGraph: true, bubbles: true, cancelable: true,
}))"""


def test_keys_zoom_step_back_and_choose_the_pane(address: str, open_page: Any) -> None:
    page = ready(open_page(address, reduced_motion="no-preference"))
    click_node(page, "conv2", 5)
    page.keyboard.press("z")
    page.wait_for_selector("#zoom-out:not([hidden])")
    page.keyboard.press("0")
    page.wait_for_selector("#zoom-out", state="hidden")
    page.wait_for_function("revacnn.parts.timeline.recorded > 10")
    page.keyboard.press("[")
    page.wait_for_function("revacnn.parts.timeline.live === false")
    page.keyboard.press("l")
    page.wait_for_function("revacnn.parts.timeline.live === true")
    page.evaluate(ALT_GRAPH)  # brackets of many keyboards had no effect
    page.wait_for_function("revacnn.parts.timeline.live === false")
    page.keyboard.press("l")
    page.wait_for_function("revacnn.parts.timeline.live === true")
    page.keyboard.press("4")
    page.wait_for_selector("#layer-panel[data-pane=statistics]")
    page.keyboard.press("1")
    page.wait_for_selector("#layer-panel[data-pane=layer]")
    motion = page.evaluate("revacnn.motion")
    page.keyboard.press("j")
    assert page.evaluate("revacnn.motion") == motion - 0.25


def test_typed_text_triggers_no_keys(address: str, open_page: Any) -> None:
    page = ready(open_page(address))
    theme = page.evaluate("document.documentElement.dataset.theme")
    page.focus("#search")
    page.keyboard.type("tz+a")
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    assert page.is_hidden("#staging")
    assert page.is_hidden("#zoom-out")


def test_keys_were_lost_in_a_panel_that_takes_no_text(address: str, open_page: Any) -> None:
    """The run was not stopped while the panel of the input image was open."""
    page = ready(open_page(address, viewport={"width": 1680, "height": 960}))
    page.click("#edit-input")
    for place in ("#editor-image", "#editor-color", "#editor-file", "[data-brush=paint]"):
        page.focus(place)
        page.keyboard.press("X")
        page.wait_for_selector("#stop[data-confirming=true]")
        page.evaluate("document.getElementById('stop').dataset.confirming = 'false'")
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    page.focus("#finish-epoch")
    page.keyboard.press("X")
    page.wait_for_selector("#stop[data-confirming=true]")


def test_a_list_kept_the_keys_after_a_choice_and_lost_the_focus_to_an_arrow_key(
    address: str, open_page: Any
) -> None:
    page = with_charts(open_page(address))
    chooser = page.locator("select[data-chart='1']")
    options = chooser.evaluate("(list) => [...list.options].map(({value}) => value)")
    chooser.dispatch_event("pointerdown")
    chooser.select_option(options[1])
    assert page.evaluate("document.activeElement === document.body")
    chooser.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.chart") == "1"


def test_enter_and_escape_in_the_search_acted_on_the_network_as_well(
    address: str, open_page: Any
) -> None:
    """Enter expanded the layer that was found, and Escape discarded what was staged."""
    page, sent = open_page(address), []
    page.on("websocket", lambda socket: socket.on("framesent", lambda text: sent.append(str(text))))
    page.reload()
    ready(page).keyboard.press("+")
    page.wait_for_selector("#staging .row[data-plan=planned]")
    page.focus("#search")
    page.keyboard.press("Escape")
    page.focus("#search")
    page.keyboard.type("nowhere")
    page.keyboard.press("Enter")
    expect(page.locator("#notice")).to_have_text('No layer has "nowhere" in its name')
    assert page.evaluate("document.activeElement.id") == "search"
    page.fill("#search", "conv2")
    page.keyboard.press("Enter")
    page.wait_for_function("revacnn.parts.selection_panel.layer == 'conv2'")
    assert page.evaluate("document.activeElement.id") == "plot"
    assert page.is_visible("#staging")
    page.keyboard.press("Escape")
    page.wait_for_selector("#staging", state="hidden")  # commands arrive in their order
    assert any("discard" in text for text in sent)
    assert not any("toggle_layer_expanded" in text for text in sent)


def test_what_did_nothing_says_why(address: str, open_page: Any) -> None:
    page = ready(open_page(address))
    notice = page.locator("#notice")
    page.keyboard.press(".")  # the run is not paused
    expect(notice).to_contain_text("Pause the run before")
    page.keyboard.press("a")
    expect(notice).to_contain_text("Nothing is staged")
    click_node(page, "conv2", 5)
    page.click("#merge", force=True)  # Playwright waits until it is enabled
    expect(notice).to_have_text("Select two or more filters to merge them.")
    assert page.is_hidden("#staging")
    page.click("#add")
    assert page.is_hidden("#notice")
    page.wait_for_selector("#staging .row")
    page.keyboard.press("Escape")
    page.wait_for_selector("#staging", state="hidden")


def test_a_menu_showed_keys_that_did_nothing_in_it(address: str, open_page: Any) -> None:
    page = ready(open_page(address))
    page.click('.column[data-layer="conv3"] > b', button="right")
    page.wait_for_selector("#layer-menu:popover-open")
    page.keyboard.press("Shift+F")
    expect(page.locator("#staging .title")).to_contain_text("conv3")  # of the menu, not selected
    page.keyboard.press("Escape")
    page.wait_for_selector("#staging", state="hidden")
