"""The learning rate of a layer, lowered beside a verdict and set in the menu of the layer."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.test_page import ready

pytestmark = pytest.mark.browser

# A row as of the panel; newer rows of the run replace it.
LOWER = """() => {
  const lower = {option: "lower_rate", label: "Lower the rate", ids: [], note: "", value: 0, refusal: ""}
  const row = {kind: "restless", layer: 1, text: "conv2: restless", note: "", ids: [], remedies: [lower], refusal: ""}
  revacnn.deliver("verdicts", {rows: [row], total: 1, badges: [], problem: ""})
  document.querySelector("#verdicts button.tiny").click()
}"""  # noqa: E501


def apply(page: Any) -> None:
    expect(page.locator("#staging .row[data-plan=planned]")).to_be_visible()
    page.click("#staging button.apply")
    expect(page.locator("#reply[data-state=applied]")).to_be_visible()


def test_a_click_lowers_the_rate_and_the_menu_restores_it(address: str, open_page: Any) -> None:
    page = ready(open_page(address))
    page.wait_for_function("revacnn.parts.verdicts != null")
    page.evaluate(LOWER)
    expect(page.locator("#staging .title")).to_have_text("conv2 at 0.1 × the learning rate")
    apply(page)
    header = page.locator(".column[data-layer=conv2] > b")
    expect(header).to_have_attribute("title", "conv2 · 16 filters · 0.1 × the learning rate · "
                                     "double-click to expand or collapse")  # fmt: skip
    header.click()
    expect(page.locator("#layer")).to_have_attribute(
        "title", re.compile("· 0.1 × the learning rate$")
    )
    page.keyboard.press("o")
    factor = page.get_by_label("Factor of the learning rate")
    expect(factor).to_have_value("0.1")
    factor.fill("0")  # the input refuses it
    page.keyboard.press("Enter")
    expect(page.locator("#layer-menu")).to_be_visible()
    factor.fill("1")
    page.keyboard.press("Enter")
    expect(page.locator("#staging .title")).to_have_text("conv2 at the full learning rate")
    apply(page)
    expect(header).to_have_attribute("title", "conv2 · 16 filters · double-click to expand or "
                                     "collapse")  # fmt: skip
