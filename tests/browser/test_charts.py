"""What the charts show under the pointer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.test_page import ready, width
from tests.viewer.processes import server, training, wait_for

pytestmark = pytest.mark.browser

EDITS = 6
CHARTS = ("loss", "learning_rate", "layers_0", "layers_1")

# Text and height of every tooltip that a chart shows now.
TOOLTIPS = """() => [...document.querySelectorAll(".bk-Tooltip")]
  .map((tip) => ({text: tip.shadowRoot.textContent, height: tip.getBoundingClientRect().height}))
  .filter(({height}) => height > 0)"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    runtime = tmp_path_factory.mktemp("charts")
    with training(runtime, "--net", "digits"), server(runtime) as address:
        yield address


def test_hovering_a_chart_shows_a_few_lines_however_many_edits_there_are(
    address: str, open_page: Any
) -> None:
    page = ready(open_page(address, viewport={"width": 1680, "height": 960}))
    filters = width(page, "conv2")
    for edit in range(EDITS):
        page.click('.column[data-layer="conv2"] button.more')
        page.wait_for_selector("#staging button.apply:not([disabled])")
        page.click("#staging button.apply")
        page.wait_for_function("(n) => revacnn.nodes('conv2').length == n", arg=filters + edit + 1)
    page.wait_for_function("(n) => document.querySelectorAll('#records li').length >= n", arg=EDITS)
    seen = []
    for i, _ in enumerate(CHARTS):
        box = page.locator(".chart .plot").nth(i).bounding_box()
        for step in range(2, 39):
            page.mouse.move(box["x"] + box["width"] * step / 40, box["y"] + box["height"] / 2)
            tooltips = page.evaluate(TOOLTIPS)
            seen += tooltips
            assert sum(tooltip["height"] for tooltip in tooltips) < 200
            assert sum(tooltip["text"].count("conv2") for tooltip in tooltips) <= 4
    wait_for(lambda: bool(seen), what="a tooltip of a chart")
