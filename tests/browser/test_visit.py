"""A first visit with its hints, a page opened by its address, and a run that trains and pauses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.test_page import click_node, ready
from tests.viewer.processes import server, training

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    runtime = tmp_path_factory.mktemp("visit")
    with training(runtime, "--net", "digits"), server(runtime) as address:
        yield address


def test_a_first_visit_has_hints_that_are_dismissed_for_good(address: str, open_page: Any) -> None:
    page = ready(open_page(address, first_visit=True))
    expect(page.locator("#hints li")).to_have_count(3)
    assert Axe().run(page, context="#hints").response["violations"] == []
    before = page.evaluate("document.getElementById('plot').clientHeight")
    page.click("#dismiss-hints")
    assert page.is_hidden("#hints")
    assert page.evaluate("document.activeElement.id") == "plot"
    assert page.evaluate("document.getElementById('plot').clientHeight") > before
    page.reload()
    ready(page)
    assert page.is_hidden("#hints")


# The edges of each output, and what covers or cuts them.
HIDDEN_OUTPUTS = """() => {
  const plot = document.getElementById("plot").getBoundingClientRect()
  const title = document.getElementById("network-output-head").getBoundingClientRect()
  const rows = [...document.querySelectorAll(".output")].map((row) => row.getBoundingClientRect())
  return rows.flatMap((row, i) => [
    row.bottom > plot.bottom + 1 && `${i} is cut`,
    plot.height < 180 && `the network is only ${plot.height} px high`,
    row.right > plot.right && `${i} is too wide`,
    row.top < title.bottom - 1 && `${i} is below the title`,
    i > 0 && row.top < rows[i - 1].bottom - 1 && `${i} is on another one`,
  ]).filter(Boolean)
}"""


@pytest.mark.parametrize("size", [(1280, 720), (1280, 800), (1680, 960), (390, 844)])
def test_the_last_class_was_hidden_below_all_that_can_be_open(
    size: tuple[int, int], address: str, open_page: Any
) -> None:
    viewport = {"width": size[0], "height": size[1]}
    page = ready(open_page(address, first_visit=True, viewport=viewport))
    expect(page.locator(".output")).to_have_count(10)
    page.click("#price-colors")
    page.wait_for_selector("#automatic:not([hidden])")
    page.locator(".column button.more").first.click()
    page.wait_for_selector("#staging button.apply:enabled")
    page.wait_for_function(f"({HIDDEN_OUTPUTS})().length == 0")
    page.keyboard.press("Escape")


def test_the_address_is_a_link_to_what_the_page_shows(address: str, open_page: Any) -> None:
    page = ready(open_page(address))
    page.wait_for_function("revacnn.parts.timeline.recorded > 20")
    click_node(page, "conv2", 6)
    page.click("button[data-pane=maps]")
    page.focus("#time")
    page.keyboard.press("Home")  # the first recorded batch
    page.wait_for_selector("#timeline[data-live=false]")
    page.wait_for_function("/[?&]batch=/.test(location.search)")
    link = page.evaluate("location.href")
    assert "pane=maps" in link
    other = ready(open_page(link))
    other.wait_for_selector("#layer-panel[data-pane=maps]")
    other.wait_for_function("revacnn.parts.selection_panel.layer == 'conv2'")
    assert other.evaluate("revacnn.parts.selection.index") == 6
    other.wait_for_selector("#timeline[data-live=false]")
    shown = "document.getElementById('moment').textContent.split(' of ')[0]"
    assert other.evaluate(shown) == page.evaluate(shown)  # the newest batch differs
    other.keyboard.press("l")
    other.wait_for_function("!/[?&]batch=/.test(location.search)")
    assert other.title().startswith("● ")
    assert other.title().count(" · ") >= 2


def test_a_run_trains_some_batches_and_pauses(address: str, open_page: Any) -> None:
    page = ready(open_page(address))
    page.keyboard.press("n")
    page.wait_for_selector("#train-panel:popover-open")
    assert page.evaluate("document.activeElement.id") == "train-batches"
    assert Axe().run(page, context="#train-panel").response["violations"] == []
    page.keyboard.type("25")
    page.keyboard.press("Enter")
    page.wait_for_selector("#train-panel", state="hidden")
    expect(page.locator("#reply")).to_contain_text("Train 25 batches")
    page.keyboard.press("e")
    expect(page.locator("#reply")).to_contain_text("Train to the end of the epoch")
    page.click("#train")
    page.click("#finish-epoch")
    page.wait_for_selector("#train-panel", state="hidden")
    expect(page.locator("#records li")).to_have_count(3)
