"""What had no room on a small screen, said a thing twice, or moved the focus to another thing."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.test_page import ready

pytestmark = pytest.mark.browser

SMALL = {"width": 1280, "height": 720}


def test_the_timeline_had_no_slider_beside_a_staged_change(address: str, open_page: Any) -> None:
    page = ready(open_page(address, viewport=SMALL))
    page.wait_for_function("revacnn.parts.timeline.recorded > 5")
    page.locator('.column[data-layer="conv1"] button.more').click()
    page.wait_for_selector("#staging .row[data-plan=planned]")
    page.keyboard.press("[")
    page.wait_for_selector("#timeline[data-live=false]")
    assert page.locator("#time").bounding_box()["width"] > 150
    page.keyboard.press("l")
    page.keyboard.press("Escape")


FOCUSED = """() => {
  const row = {kind: "twins", layer: 0, text: "conv1: 2 twins", note: "", refusal: ""}
  const merge = {option: "merge", label: "Merge", note: ""}
  const rows = [[1, 2], [3, 4]].map((ids) => ({...row, ids, remedies: [{...merge, ids}]}))
  const data = {...revacnn.parts.verdicts, rows, problem: ""}
  revacnn.deliver("verdicts", data)
  document.querySelectorAll("#verdicts button.tiny")[1].focus()
  revacnn.deliver("verdicts", data)
  return [...document.querySelectorAll("#verdicts button.tiny")].indexOf(document.activeElement)
}"""


def test_the_focus_moved_from_one_group_of_twins_to_another(address: str, open_page: Any) -> None:
    """A key pressed there would have merged other filters than those that were read."""
    page = ready(open_page(address, viewport=SMALL))
    page.wait_for_function("revacnn.parts.verdicts != null")
    assert page.evaluate(FOCUSED) == 1


MANY = """() => {
  const row = {kind: "dead", layer: 0, note: "", refusal: "", remedies: []}
  const rows = Array.from({length: 9}, (_, i) => ({...row, text: `conv1: ${i}`, ids: [i]}))
  revacnn.deliver("verdicts", {rows, total: 9, badges: [], problem: ""})
  return [...document.querySelectorAll("#verdicts li")].map((one) => one.textContent)
}"""


def test_verdicts_beyond_six_could_not_be_seen(address: str, open_page: Any) -> None:
    page = ready(open_page(address, viewport=SMALL))
    page.wait_for_function("revacnn.parts.verdicts != null")
    assert page.evaluate(MANY)[-2:] == ["conv1: 5", "3 more"]
    page.evaluate(
        "[...document.querySelectorAll('#verdicts button')].at(-1).click()"
    )  # before the run's own verdicts come
    assert page.evaluate(MANY)[-2:] == ["conv1: 8", "fewer"]


SAID = """() => {
  const note = "the input is a row of numbers, which has no parts"
  revacnn.deliver("inspection", {status: "", busy: false, top_images: [], no_top_images: note,
    preferred: null, preferred_note: note, refused: note})
  return document.querySelector(".pane.inspection .activating").innerText.trim()
}"""


def test_why_nothing_is_inspected_was_said_twice_side_by_side(address: str, open_page: Any) -> None:
    page = ready(open_page(address, viewport=SMALL))
    page.keyboard.press("3")
    page.wait_for_selector(".pane.inspection:not([hidden])")
    assert page.evaluate(SAID) == "The input is a row of numbers, which has no parts."


def test_images_that_activate_a_filter_were_dots_on_a_low_screen(
    address: str, open_page: Any
) -> None:
    page = ready(open_page(address, viewport=SMALL))
    page.keyboard.press("3")
    picture = page.locator("#top-images .picture").first
    expect(picture).to_be_visible()
    assert picture.bounding_box()["height"] > 24


def test_the_search_had_no_room_beside_the_name_of_a_class(address: str, open_page: Any) -> None:
    page = ready(open_page(address, viewport=SMALL))
    page.click("#class-colors")
    page.wait_for_selector("#of-class:not([hidden])")
    expect(page.locator("#color-name")).to_have_text("class")
    assert page.locator("#search").bounding_box()["width"] > 100
