"""The page is accessible: by axe's rules, in forced colors, and at every size of the window."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.test_page import ready
from tests.viewer.processes import server, training

pytestmark = pytest.mark.browser

THEMES = {
    "dark": {"color_scheme": "dark"},
    "light": {"color_scheme": "light"},
    "forced colors": {"color_scheme": "dark", "forced_colors": "active"},
}
# A phone, a laptop zoomed in to 200 %, both sides of the narrow layout, and larger windows.
SIZES = [(360, 740), (390, 844), (640, 480), (800, 600), (801, 600), (1024, 768), (2560, 1440)]
# Controls beyond the left or right edge, or below a page that does not scroll.
UNREACHABLE = """() => {
  const scrolls = document.scrollingElement.scrollHeight > innerHeight
  return [...document.querySelectorAll("button, input, select")].filter((element) => {
    const {left, right, bottom, width} = element.getBoundingClientRect()
    if (width === 0 || getComputedStyle(element).visibility !== "visible") return false
    if (element.closest("#columns")) return false // the network view pans
    return left < -1 || right > innerWidth + 1 || !scrolls && bottom > innerHeight + 1
  }).map((element) => element.id || element.textContent)
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    runtime = tmp_path_factory.mktemp("accessibility")
    with training(runtime, "--net", "alexnet", "--hz", "5"), server(runtime) as address:
        yield address


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing(address: str, open_page: Any, theme: str) -> None:
    page = ready(open_page(address, **THEMES[theme]))
    for pane in ("layer", "maps", "inspection", "statistics", "histograms", "classes"):
        page.click(f"button[data-pane={pane}]")
        page.wait_for_selector(f".pane[data-name={pane}]:not([hidden])")
        assert violations(page) == [], pane
    page.keyboard.press("g")
    page.wait_for_selector("#layer-table tbody tr")
    assert violations(page) == []


def violations(page: Any) -> list[tuple[str, list[Any]]]:
    found = Axe().run(page).response["violations"]
    return [(one["id"], [node["target"] for node in one["nodes"]]) for one in found]


def test_the_menu_of_a_layer_is_accessible(address: str, open_page: Any) -> None:
    page = ready(open_page(address))
    page.keyboard.press("o")
    page.wait_for_selector("#layer-menu:popover-open")
    found = Axe().run(page, context="#layer-menu").response["violations"]
    assert [one["id"] for one in found] == []
    page.keyboard.press("ArrowUp")  # from the first item to the last
    assert page.evaluate("document.activeElement.textContent").startswith("Remove the layer")
    page.keyboard.press("Escape")
    page.wait_for_selector("#layer-menu:not(:popover-open)", state="hidden")


MANY_RECORDS = """() => {
  const record = {title: "Add 1 filter", text: "applied at batch 3", state: "applied"}
  const records = Array(40).fill(record)
  revacnn.deliver("changes", {records, undo_disabled: "", redo_disabled: "none"})
  revacnn.deliver("ranks", {shown: true, open: true, text: "rank 1 differs", head: ["rank", "loss"],
    rows: Array(64).fill({cells: ["1", "0.5"], note: "out of step"})})
}"""
SCROLLED = ("#records", "#ranks-box")


def test_what_scrolls_could_not_be_scrolled_by_key(address: str, open_page: Any) -> None:
    page = ready(open_page(address))
    assert all(page.get_attribute(box, "tabindex") is None for box in SCROLLED)  # nothing to scroll
    page.evaluate(MANY_RECORDS)
    for box in SCROLLED:
        page.wait_for_selector(f"{box}[tabindex='0']")
    assert violations(page) == []


OPENED = {  # what opens, by what is pressed
    "#train-panel": "#train",
    "#rates-panel": "#rates",
    "#image-editor": "#edit-input",
    "#chart-menu": ".chart[data-plot=loss] [data-chart-action=menu]",
    "#keys": "#help",
}


def test_what_opens_is_accessible(address: str, open_page: Any) -> None:
    page = ready(open_page(address, viewport={"width": 1680, "height": 960}))
    page.click("#price-colors")
    page.keyboard.press("+")
    page.wait_for_selector("#staging .row[data-plan=planned]")
    assert violations(page) == []
    page.keyboard.press("Escape")
    for box, button in OPENED.items():
        page.click(button)
        assert page.is_visible(box)
        found = Axe().run(page, context=box).response["violations"]
        assert [one["id"] for one in found] == [], box
        page.keyboard.press("Escape")
        page.wait_for_selector(box, state="hidden")


def test_every_control_can_be_reached_at_every_size(address: str, open_page: Any) -> None:
    page = ready(open_page(address))
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_function("(width) => innerWidth === width && revacnn.frames > 0", arg=width)
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        assert page.evaluate(UNREACHABLE) == [], (width, height)
        assert page.evaluate("document.getElementById('plot').clientWidth") >= 300


def touch(session: Any, kind: str, *points: tuple[float, float]) -> None:
    found = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
    session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": found})


def test_a_touch_screen_could_not_zoom_and_the_wheel_did_not_scroll(
    address: str, open_page: Any
) -> None:
    """On a phone, and on a laptop zoomed in to 200 %, where the page scrolls."""
    page = ready(open_page(address, viewport={"width": 390, "height": 844}, has_touch=True))
    box = page.locator("#plot").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + 200
    page.mouse.move(x, y)
    page.mouse.wheel(0, 120)
    page.wait_for_function("document.scrollingElement.scrollTop > 0")
    assert page.is_hidden("#zoom-out")
    page.evaluate("scrollTo(0, 0)")
    session = page.context.new_cdp_session(page)
    touch(session, "touchStart", (x - 20, y), (x + 20, y))
    for distance in (30, 50, 80):
        touch(session, "touchMove", (x - distance, y), (x + distance, y))
    touch(session, "touchEnd")
    page.wait_for_selector("#zoom-out:not([hidden])")
    page.click("#zoom-out")
    page.wait_for_selector("#zoom-out", state="hidden")


def test_a_chart_did_not_fill_a_narrow_window_and_keys_grew_to_the_side(
    address: str, open_page: Any
) -> None:
    page = ready(open_page(address, viewport={"width": 390, "height": 844}))
    page.click(".chart[data-plot=loss] [data-chart-action=enlarge]")
    assert page.locator(".chart[data-plot=loss]").bounding_box()["height"] > 700
    page.keyboard.press("Escape")
    page.click("#help")
    size = "({scrollWidth, clientWidth}) => scrollWidth - clientWidth"
    assert page.eval_on_selector("#keys .list", size) == 0
    assert page.get_attribute("#keys .list", "tabindex") == "0"  # it scrolls


# Whether something else than the title of a view is clicked at three places of it.
COVERED = """(name) => {
  const title = document.querySelector(`.view[data-view=${name}] h3 button`)
  const {left, top, width, height} = title.getBoundingClientRect()
  const places = [0.05, 0.5, 0.95].map((share) => [left + share * width, top + height / 2])
  return places.some(([x, y]) => !title.contains(document.elementFromPoint(x, y)))
}"""


def test_the_title_of_a_narrow_view_lay_below_invisible_buttons(
    address: str, open_page: Any
) -> None:
    """A click on the title saved an image."""
    page = ready(open_page(address, viewport={"width": 390, "height": 844}))
    for name in ("coefficients", "gradients", "activations", "activation_gradients"):
        page.hover(f".view[data-view={name}] canvas")
        assert not page.evaluate(COVERED, name), name


def test_states_are_visible_in_forced_colors(address: str, open_page: Any) -> None:
    page = ready(open_page(address, forced_colors="active"))

    def style(selector: str, name: str) -> str:
        found: str = page.eval_on_selector(selector, f"(e) => getComputedStyle(e).{name}")
        return found

    # The system removes backgrounds: a slider of the page's own would be invisible.
    assert style("#motion", "appearance") == style("#time", "appearance") == "auto"
    assert style(".legend i", "forcedColorAdjust") == "none"
    assert style("#dot", "forcedColorAdjust") == "none"
    assert style("button[data-pane=layer]", "textDecorationLine") == "underline"
    assert style("button[data-pane=maps]", "textDecorationLine") == "none"
