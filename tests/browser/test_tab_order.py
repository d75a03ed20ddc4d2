"""Every tab stop has a name of its own, and everything that is clicked has one or a key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.browser.test_page import ready
from tests.viewer.processes import server, training

pytestmark = pytest.mark.browser

PANES = ("layer", "maps", "inspection", "statistics")
MAX_STOPS = 120  # a walk that does not come to an end
# What has the focus, in the shadow roots of Bokeh's charts, too.
FOCUSED = """(() => {
  let element = document.activeElement
  while (element?.shadowRoot?.activeElement) element = element.shadowRoot.activeElement
  return element
})()"""
# The next Tab leads to the first tab stop, whatever was clicked before.
BEGIN = """() => {
  const app = document.getElementById("app")
  app.tabIndex = -1
  app.focus()
  app.removeAttribute("tabindex")
}"""
IS_REPLACED = "function () { return !this.isConnected }"
IS_SEEN = """function () {
  const {width, height} = this.getBoundingClientRect()
  return width > 0 && height > 0 && getComputedStyle(this).visibility == "visible"
}"""


class Stop(NamedTuple):
    """An element that has the focus, as a screen reader describes it."""

    role: str
    name: str
    is_seen: bool
    number: int  # of the element, unique in the document


def focused(session: Any) -> Stop | None:
    """Return what has the focus, None for the document itself."""
    handle = session.send("Runtime.evaluate", {"expression": FOCUSED})["result"]
    if handle.get("className") in ("HTMLBodyElement", None):
        return None
    object_id = handle["objectId"]
    query = {"objectId": object_id, "fetchRelatives": False}
    node = session.send("Accessibility.getPartialAXTree", query)["nodes"][0]
    is_seen, is_replaced = (
        session.send(
            "Runtime.callFunctionOn",
            {"functionDeclaration": function, "objectId": object_id, "returnByValue": True},
        )["result"]["value"]
        for function in (IS_SEEN, IS_REPLACED)
    )
    if is_replaced:  # newer data came while it was described
        return focused(session)
    role, name = (node.get(key, {}).get("value", "") for key in ("role", "name"))
    number = session.send("DOM.describeNode", {"objectId": object_id})["node"]["backendNodeId"]
    return Stop(role, name.strip(), is_seen, number)


def walk(page: Any, key: str = "Tab") -> list[Stop]:
    """Return all tab stops of the page in their order."""
    session = page.context.new_cdp_session(page)
    page.evaluate(BEGIN)
    stops: list[Stop] = []
    for _ in range(MAX_STOPS):
        page.keyboard.press(key)
        stop = focused(session)
        if stop is None or (stops and stop.number == stops[0].number):
            return stops
        stops.append(stop)
    raise AssertionError(f"more than {MAX_STOPS} tab stops: {stops[-5:]}")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    runtime = tmp_path_factory.mktemp("tab_order")
    with training(runtime, "--net", "resnet18", "--hz", "5"), server(runtime) as address:
        yield address


@pytest.mark.parametrize("pane", PANES)
def test_tab_stops_had_no_name_or_the_same_as_others(
    address: str, open_page: Any, pane: str
) -> None:
    page = ready(open_page(address))
    page.click(f"button[data-pane={pane}]")
    page.wait_for_selector(f".pane[data-name={pane}]:not([hidden])")
    page.wait_for_function("revacnn.views?.coefficients?.count > 0")
    stops = walk(page)
    assert [stop for stop in stops if not stop.name] == []
    assert [stop for stop in stops if not stop.is_seen] == []
    names = [(stop.role, stop.name) for stop in stops]
    assert [name for name in names if names.count(name) > 1] == []
    assert len(stops) > 25
    assert sum("layer1.0.conv1" in stop.name for stop in stops) == 0  # of another layer
    assert any(stop.name.startswith("Network.") for stop in stops)


def test_the_titles_of_the_selected_layer_and_its_block_are_tab_stops(
    address: str, open_page: Any
) -> None:
    page = ready(open_page(address))
    page.evaluate("revacnn.sendCommand('select_largest_gradient_filter', {layer: 3})")
    page.wait_for_selector('.column[data-layer="layer1.1.conv1"][data-current="true"]')
    names = [stop.name for stop in walk(page)]
    assert any(name.startswith("layer1.1.conv1, ") for name in names)
    assert "Close block layer1" in names
    page.focus('.column[data-current="true"] > b')
    page.keyboard.press("Enter")
    page.wait_for_function("revacnn.parts.selection_panel.layer == 'layer1.1.conv1'")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("O")
    page.wait_for_selector("#layer-menu:popover-open")
    assert "Remove the block" in page.inner_text("#layer-menu")


# Two rows arrive, the first gets the focus, and rows with another text in another order arrive.
FOCUS_AFTER_NEWER_VERDICTS = """() => {
  const remedy = {option: "reinitialize", label: "Reinitialize", ids: [], note: ""}
  const row = (layer, text) => (
    {kind: "dead", layer, text, note: "", ids: [], remedies: [remedy], refusal: ""}
  )
  const deliver = (...rows) => revacnn.deliver("verdicts", {rows, total: rows.length})
  deliver(row(3, "stem: 1 dead"), row(5, "head: 2 dead"))
  const focused = []
  const name = (button) => button.getAttribute("aria-label") ?? button.textContent
  for (const wanted of ["stem: 1 dead", "Reinitialize: stem: 1 dead"]) {
    const buttons = [...document.querySelectorAll("#verdicts button")]
    buttons.find((button) => name(button) === wanted).focus()
    deliver(row(5, "head: 3 dead"), row(3, "stem: 4 dead"))
    focused.push(name(document.activeElement))
    deliver(row(3, "stem: 1 dead"), row(5, "head: 2 dead"))
  }
  deliver(row(5, "head: 2 dead"))
  return [...focused, document.activeElement === document.body]
}"""


def test_verdicts_had_lost_the_focus_when_newer_ones_arrived(address: str, open_page: Any) -> None:
    page = ready(open_page(address))
    focused = page.evaluate(FOCUS_AFTER_NEWER_VERDICTS)
    assert focused == ["stem: 4 dead", "Reinitialize: stem: 4 dead", True]
