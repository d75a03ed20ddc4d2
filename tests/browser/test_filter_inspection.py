"""What activates the selected filter, in a real Chromium, with a simulated training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.viewer.processes import server, training

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    runtime = tmp_path_factory.mktemp("inspection")
    with training(runtime, "--net", "alexnet", "--hz", "5"), server(runtime) as address:
        yield address


@pytest.fixture
def page(alexnet: str, open_page: Any) -> Any:
    page = open_page(alexnet, viewport={"width": 1680, "height": 960})
    page.wait_for_function("window.revacnn?.ready === true")
    return page


def count_colors(page: Any, picture: str) -> int:
    """Return how many different colors an image shows."""
    found: int = page.evaluate(
        """(picture) => {
          const canvas = document.querySelector(picture + " canvas")
          const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height)
          return new Set(new Uint32Array(data.buffer)).size
        }""",
        picture,
    )
    return found


def test_the_pane_shows_nine_top_images_and_the_attribution(page: Any) -> None:
    assert page.evaluate("revacnn.parts.inspection?.top_images") is None  # requested once shown
    page.click("button[data-pane=inspection]")
    page.wait_for_function("document.querySelectorAll('#top-images canvas').length == 9")
    expect(page.locator("#top-images .caption b").first).to_have_text("5.00")
    expect(page.locator("#crop-note")).to_contain_text("12×12")
    captions = page.locator("#attribution figcaption").all_inner_texts()
    assert captions == ["input", "response 3.25", "deconvolution", "guided backprop"]
    for picture in [
        "#top-images li",
        "#preferred",
        *(f"#attribution figure:nth-child({n})" for n in (1, 2, 3, 4)),
    ]:
        assert count_colors(page, picture) > 8
    boxes = page.evaluate(
        """() => [...document.querySelectorAll('.pane.inspection canvas')].map((canvas) => {
          const mine = canvas.getBoundingClientRect()
          const place = canvas.parentElement.getBoundingClientRect()
          return mine.width > 20 && mine.right <= place.right + 1 && mine.bottom <= place.bottom + 1
        })"""
    )
    assert len(boxes) == 14
    assert all(boxes)


def test_hover_enlarges_and_the_pane_shows_the_selected_filter_and_image(page: Any) -> None:
    page.click("button[data-pane=inspection]")
    page.wait_for_function("document.querySelectorAll('#top-images canvas').length == 9")
    page.hover("#top-images li:nth-child(2) .picture")
    page.wait_for_selector("#tooltip[data-owner=inspection]:not([hidden]) canvas")
    expect(page.locator("#tooltip")).to_contain_text("response 4.60")
    page.hover("#layer")
    page.wait_for_selector("#tooltip", state="hidden")
    before = page.evaluate("[...revacnn.parts.inspection.guided]")
    page.evaluate(
        "revacnn.sendCommand('select_largest_gradient_filter', {layer: 1, first: 7, last: 7})"
    )
    page.wait_for_function(
        """(old) => {
          const {guided, top_images} = revacnn.parts.inspection
          return top_images && String([...guided]) != old
        }""",
        arg=",".join(map(str, before)),
    )
    page.click(".pane.inspection button[data-image='1']")
    page.wait_for_function("revacnn.parts.inspection.title == 'validation image 0'")
    page.click(".pane.inspection button[data-image=batch]")
    page.wait_for_function("revacnn.parts.inspection.title == 'first image of the batch'")
