"""What the selected filter looks for, in a real Chromium, with a made-up training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.viewer.processes import server, training

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    runtime = tmp_path_factory.mktemp("looks")
    with training(runtime, "--net", "alexnet", "--hz", "5"), server(runtime) as address:
        yield address


@pytest.fixture
def page(alexnet: str, open_page: Any) -> Any:
    page = open_page(alexnet, reduced_motion="reduce", viewport={"width": 1680, "height": 960})
    page.wait_for_function("window.revacnn?.ready === true")
    return page


def colours(page: Any, picture: str) -> int:
    """How many different colours a picture shows."""
    found: int = page.evaluate(
        """(picture) => {
          const canvas = document.querySelector(picture + " canvas")
          const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height)
          return new Set(new Uint32Array(data.buffer)).size
        }""",
        picture,
    )
    return found


def test_the_pane_shows_nine_images_and_what_in_the_input_excites_the_filter(page: Any) -> None:
    assert page.evaluate("revacnn.parts.looks?.finds") is None  # asked for only when it is open
    page.click("button[data-pane=looks]")
    page.wait_for_function("document.querySelectorAll('#finds canvas').length == 9")
    expect(page.locator("#finds .words b").first).to_have_text("5.00")
    expect(page.locator("#finds-facts")).to_contain_text("12×12")
    captions = page.locator("#reasons figcaption").all_inner_texts()
    assert captions == ["input", "response 3.25", "deconvolution", "guided backprop"]
    for picture in ["#finds li", *(f"#reasons figure:nth-child({n})" for n in (1, 2, 3, 4))]:
        assert colours(page, picture) > 8
    boxes = page.evaluate(
        """() => [...document.querySelectorAll('.pane.looks canvas')].map((canvas) => {
          const mine = canvas.getBoundingClientRect()
          const place = canvas.parentElement.getBoundingClientRect()
          return mine.width > 20 && mine.right <= place.right + 1 && mine.bottom <= place.bottom + 1
        })"""
    )
    assert len(boxes) == 13
    assert all(boxes)


def test_pointing_enlarges_and_the_selection_and_the_image_are_followed(page: Any) -> None:
    page.click("button[data-pane=looks]")
    page.wait_for_function("document.querySelectorAll('#finds canvas').length == 9")
    page.hover("#finds li:nth-child(2) .picture")
    page.wait_for_selector("#tip[data-of=looks]:not([hidden]) canvas")
    expect(page.locator("#tip")).to_contain_text("response 4.60")
    page.hover("#layer")
    page.wait_for_selector("#tip", state="hidden")
    before = page.evaluate("[...revacnn.parts.looks.guided]")
    page.evaluate("revacnn.send('select', {layer: 1, first: 7, last: 7})")
    page.wait_for_function(
        "(old) => revacnn.parts.looks.finds && String([...revacnn.parts.looks.guided]) != old",
        arg=",".join(map(str, before)),
    )
    page.click("button[data-image='1']")
    page.wait_for_function("revacnn.parts.looks.title == 'validation image 0'")
    page.click("button[data-image=batch]")
    page.wait_for_function("revacnn.parts.looks.title == 'first of the batch'")
