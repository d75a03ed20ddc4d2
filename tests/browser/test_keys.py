"""Everything can be done by keys, and the key sheet lists them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.test_page import click_node, ready, width
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
    page.wait_for_selector("#staging button.apply:not([disabled])")
    page.keyboard.press("a")
    page.wait_for_function("(n) => revacnn.nodes('conv2').length == n", arg=before + 1)
    page.keyboard.press("u")
    page.wait_for_function("(n) => revacnn.nodes('conv2').length == n", arg=before)


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
