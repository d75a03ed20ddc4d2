"""A large network is folded by block; blocks open and close by mouse and by keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.test_page import ready
from tests.viewer.processes import server, training

pytestmark = pytest.mark.browser

BLOCK = ".block-header[data-block='features.denseblock1'] .fold"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    runtime = tmp_path_factory.mktemp("folding")
    with training(runtime, "--net", "densenet121", "--hz", "5"), server(runtime) as address:
        yield address


def blocks(page: Any) -> int:
    return int(page.locator(".block-header").count())


def test_blocks_open_and_close_by_mouse_and_by_keys(address: str, open_page: Any) -> None:
    page = ready(open_page(address))
    assert blocks(page) == 4
    page.click(BLOCK)
    page.wait_for_selector("[data-block='features.denseblock1.denselayer6']")
    assert blocks(page) == 3 + 6
    page.click(".stage button.fold[aria-label='Close block features.denseblock1']")
    page.wait_for_selector(BLOCK)
    assert blocks(page) == 4
    page.click("#plot", position={"x": 8, "y": 8})
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".block-header[data-current=true]")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-block='features.denseblock1.denselayer6']")
    page.keyboard.press("b")
    page.wait_for_selector(BLOCK)


def test_search_opens_the_blocks_around_the_layer(address: str, open_page: Any) -> None:
    page = ready(open_page(address))
    page.keyboard.press("/")
    page.keyboard.type("block3.denselayer20.conv2")
    page.wait_for_function(
        "revacnn.parts.selection_panel.layer.endsWith('denseblock3.denselayer20.conv2')"
    )
    assert blocks(page) == 4  # still typing
    page.keyboard.press("Enter")
    page.wait_for_selector(".column[data-layer='features.denseblock3.denselayer20.conv2']")
    assert blocks(page) == 3 + 23


# Whether the beginning of the name in the layer panel is cut off.
CUT = """() => [...document.querySelectorAll("#layer span")]
  .some(({scrollWidth, clientWidth}) => scrollWidth > clientWidth)"""


def test_the_name_of_the_layer_was_cut_beside_the_panes(address: str, open_page: Any) -> None:
    """``f…conv1``, in a window of 1440 px; its facts had a line of their own."""
    page = ready(open_page(address, viewport={"width": 1440, "height": 900}))
    name = "features.denseblock3.denselayer20.conv2"
    page.fill("#search", name)
    page.wait_for_function("(name) => revacnn.parts.selection_panel.layer == name", arg=name)
    assert not page.evaluate(CUT)
    assert page.get_attribute("#layer", "title").startswith(name)
    for width in (390, 801, 1280, 1680, 2560):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_function("(width) => innerWidth === width", arg=width)
        assert not page.evaluate(CUT), width
