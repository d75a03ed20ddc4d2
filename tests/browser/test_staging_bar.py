"""The bar of several staged changes: how much height it takes, and that none of it is lost."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.test_page import click_node, ready

pytestmark = pytest.mark.browser

LINE = 34  # px of the row of buttons, which all other lines are lower than


def stage_three(page: Any) -> None:
    """Stage three changes, and wait for their plans and for the cost of trying them."""
    page.locator('.column[data-layer="conv1"] button.more').click()
    page.locator('.column[data-layer="conv3"] button.more').click()
    click_node(page, "conv2", 6)
    page.keyboard.press("Delete")
    expect(page.locator("#staging .row[data-plan=planned]")).to_have_count(3)
    page.wait_for_selector("#staging button.try[aria-disabled=false]")
    expect(page.locator("#staging .foot small.detail")).to_contain_text("parameters")


# What of the bar is cut off, or below something else.
LOST = """() => {
  const shown = document.querySelectorAll("#staging :is(.what, small, button, input)")
  return [...shown].filter((one) => one.textContent || one.matches("input")).flatMap((one) => {
    const name = `${one.localName}.${one.className} ${one.textContent}`
    one.scrollIntoView({block: "center"}) // the row of buttons sticks to the lower edge
    const {left, top, right, bottom, width, height} = one.getBoundingClientRect()
    const over = document.elementFromPoint(left + width / 2, top + height / 2)
    return [
      (left < 0 || right > innerWidth || top < 0 || bottom > innerHeight) && `${name} is outside`,
      one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display != "inline" && `${name} is cut`,
      one.matches("button, input") && !one.contains(over) && `${name} is covered`,
    ]
  }).filter(Boolean)
}"""  # noqa: E501


@pytest.mark.parametrize("size", [(1280, 720), (1280, 800), (1680, 960)])
def test_several_staged_changes_took_five_lines(
    size: tuple[int, int], address: str, open_page: Any
) -> None:
    page = ready(open_page(address, viewport={"width": size[0], "height": size[1]}))
    stage_three(page)
    height, hidden, plot = page.evaluate("""() => {
      const bottom = document.getElementById("bottom")
      const {clientHeight} = document.getElementById("staging")
      return [clientHeight, bottom.scrollHeight - bottom.clientHeight,
        document.getElementById("plot").getBoundingClientRect().bottom
          - document.querySelector(".below").getBoundingClientRect().top]
    }""")
    assert height < 3 * LINE
    assert hidden <= 1
    assert plot <= 1  # not over the network
    assert page.evaluate(LOST) == []
    page.keyboard.press("Escape")
    page.wait_for_selector("#staging", state="hidden")


@pytest.mark.parametrize("size", [(390, 844), (640, 400)], ids=["phone", "zoomed to 200 %"])
def test_several_staged_changes_fit_a_narrow_page(
    size: tuple[int, int], address: str, open_page: Any
) -> None:
    page = ready(open_page(address, viewport={"width": size[0], "height": size[1]}))
    stage_three(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(LOST) == []
    page.keyboard.press("Escape")
    page.wait_for_selector("#staging", state="hidden")


def test_a_refused_change_among_several_says_why(address: str, open_page: Any) -> None:
    page = ready(open_page(address, viewport={"width": 1280, "height": 720}))
    stage_three(page)
    # In one call: the server may send another plan between two.
    said, lost = page.evaluate(f"""() => {{
      const {{rows, ...data}} = revacnn.parts.staging, [first, ...others] = rows
      const refused = "it would leave a layer without filters, which nothing could compute with"
      revacnn.deliver("staging", {{...data, rows: [{{...first, plan: "refused", refused}}, ...others]}})
      return [document.querySelector("#staging .refused").textContent, ({LOST})()]
    }}""")  # noqa: E501
    assert "Not possible: it would leave" in said
    assert lost == []
    page.keyboard.press("Escape")
    page.wait_for_selector("#staging", state="hidden")


def test_the_number_of_a_staged_clipping_is_changed_before_it_is_applied(
    address: str, open_page: Any
) -> None:
    page = ready(open_page(address))
    page.evaluate("revacnn.sendCommand('stage_clipping', {value: 0.37, option: 'norm'})")
    field, title = page.locator("#staging .limit input"), page.locator("#staging .title")
    expect(title).to_have_text("the gradient at norm 0.37")
    expect(page.locator("#staging button.try")).to_have_count(0)
    assert Axe().run(page, context="#staging").response["violations"] == []
    field.fill("0,5")
    page.evaluate("revacnn.sendCommand('stage_remove_layer', {layer: 1})")  # draws the bar again
    expect(page.locator("#staging .row")).to_have_count(3)
    expect(field).to_have_value("0,5")
    expect(field).to_be_focused()
    field.press("Enter")
    expect(title.first).to_have_text("the gradient at norm 0.5")
    page.locator("#staging .limit select").select_option("value")
    expect(title.first).to_have_text("the gradient at value 0.5")
    field.fill("much")
    field.press("Enter")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(title.first).to_have_text("the gradient at value 0.5")
    page.keyboard.press("Escape")  # leaves the field, as it was
    expect(field).not_to_be_focused()
    expect(title.first).to_have_text("the gradient at value 0.5")
    page.keyboard.press("Escape")
    page.wait_for_selector("#staging", state="hidden")
