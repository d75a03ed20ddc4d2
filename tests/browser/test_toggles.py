"""After every toggle of the page, what should be visible is visible, and it can be undone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.test_page import ready
from tests.viewer.processes import server, training

pytestmark = pytest.mark.browser

VIEWS = ("coefficients", "gradients", "activations", "activation_gradients")
PANES = ("layer", "maps", "inspection", "statistics", "histograms")

# The names of the elements that take up room in the page, as the browser computes their style.
VISIBLE = """([selector, name]) => [...document.querySelectorAll(selector)].filter((element) => {
  const {display, visibility, opacity} = getComputedStyle(element)
  const {width, height} = element.getBoundingClientRect()
  return display != "none" && visibility == "visible" && opacity > 0 && width > 20 && height > 20
}).map((element) => element.dataset[name])"""

# The share of the panel's area of views that one of them fills.
FILLED = """(view) => {
  const area = (element) => {
    const {width, height} = element.getBoundingClientRect()
    return width * height
  }
  const canvas = document.querySelector(`.view[data-view="${view}"] canvas`)
  return area(canvas) / area(document.querySelector(".views"))
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    runtime = tmp_path_factory.mktemp("toggles")
    with training(runtime, "--net", "alexnet", "--hz", "5"), server(runtime) as address:
        yield address


@pytest.fixture
def page(address: str, open_page: Any) -> Any:
    page = ready(open_page(address, viewport={"width": 1920, "height": 1080}))
    page.wait_for_function("revacnn.views?.coefficients?.count > 0")
    return page


def visible_views(page: Any) -> tuple[str, ...]:
    return tuple(page.evaluate(VISIBLE, [".view", "view"]))


def visible_panes(page: Any) -> tuple[str, ...]:
    return tuple(page.evaluate(VISIBLE, [".pane", "name"]))


def test_an_enlarged_view_fills_the_panel_and_a_click_shows_all_again(page: Any) -> None:
    for view in VIEWS:
        title = page.locator(f'.view[data-view="{view}"] h3 button')
        assert visible_views(page) == VIEWS
        title.click()
        assert visible_views(page) == (view,)
        assert page.evaluate(FILLED, view) > 0.85
        assert title.get_attribute("aria-expanded") == "true"
        title.click()
        assert visible_views(page) == VIEWS
        assert title.get_attribute("aria-expanded") == "false"


def test_escape_shows_all_views_again_and_then_discards_staged_changes(page: Any) -> None:
    page.keyboard.press("+")
    page.wait_for_selector("#staging .row")
    page.click('.view[data-view="gradients"] h3 button')
    page.keyboard.press("Escape")
    assert visible_views(page) == VIEWS
    assert page.is_visible("#staging")
    page.keyboard.press("Escape")
    page.wait_for_selector("#staging", state="hidden")


def test_an_enlarged_view_is_still_enlarged_after_another_pane_was_open(page: Any) -> None:
    page.click('.view[data-view="activations"] h3 button')
    page.click("button[data-pane=maps]")
    page.wait_for_selector(".pane.maps:not([hidden])")
    page.click("button[data-pane=layer]")
    page.wait_for_selector(".pane.layer:not([hidden])")
    assert visible_views(page) == ("activations",)


def test_every_pane_is_the_only_one_visible_when_it_is_open(page: Any) -> None:
    for pane in (*PANES, *reversed(PANES)):
        page.click(f"button[data-pane={pane}]")
        page.wait_for_selector(f"#layer-panel[data-pane={pane}]")
        assert visible_panes(page) == (pane,)
        pressed = page.locator("button[data-pane][aria-pressed=true]")
        assert pressed.get_attribute("data-pane") == pane


def test_dialogs_and_panels_open_and_close(page: Any) -> None:
    for button, panel in (("#rates", "#rates-panel"), ("#help", "#keys")):
        assert page.is_hidden(panel)
        page.click(button)
        assert page.is_visible(panel)
        page.keyboard.press("Escape")
        page.wait_for_selector(panel, state="hidden")
    for part in ("main", "#layer-panel", "footer", "header"):
        assert page.is_visible(part)


def test_no_stylesheet_rule_hides_by_position_or_name(page: Any) -> None:
    """Elements are hidden by their ``hidden`` attribute alone, except where room is short.

    A rule that hides elements by structure needs a second one that shows them, and which of both
    wins depends on their specificity.
    """
    script = """() => [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules])
      .filter((rule) => rule.style?.display == "none").map((rule) => rule.selectorText)"""
    texts = ("#reply small", "#inspection-status", "#image-editor p")  # gone while they are empty
    allowed = {"[hidden]", *(f"{text}:empty" for text in texts)}
    own = [rule for rule in page.evaluate(script) if "bk" not in rule and "::" not in rule]
    assert set(own) <= allowed


# What is not displayed although neither it nor anything around it has the attribute ``hidden``.
HIDDEN_BY_STYLE = """() => [...document.querySelectorAll("#app, #app *")].filter((element) =>
  getComputedStyle(element).display == "none" && element.closest("[hidden]") == null
  && !element.closest("svg, datalist, select, .bk-Figure, [popover]")
  && element.textContent.trim() != ""
).map((element) => element.id || element.className || element.tagName)"""
# Findings come and go, and the panes are opened one after the other.
# An enlarged chart covers the others.
TOGGLES = (
    "#app button:is([aria-pressed]:not([data-pane], [data-chart-action], .chip), [aria-expanded])"
    ":visible"
)


def test_no_toggle_of_the_page_hides_by_style(page: Any) -> None:
    """Elements are hidden by their attribute alone, and what was toggled can be toggled back."""
    for pane in PANES:
        page.click(f"button[data-pane={pane}]")
        page.wait_for_selector(f"#layer-panel[data-pane={pane}]")
        for toggle in page.locator(TOGGLES).all():
            if not toggle.is_visible():  # an earlier toggle has hidden it
                continue
            toggle.click()
            assert page.evaluate(HIDDEN_BY_STYLE) == []
            if toggle.is_visible() and toggle.get_attribute("aria-expanded") == "true":
                toggle.click()
        page.click(f"button[data-pane={pane}]")
        page.wait_for_selector(f"#layer-panel[data-pane={pane}]")
