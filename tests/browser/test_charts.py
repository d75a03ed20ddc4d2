"""What the charts show under the pointer, their menus, zoom, and what can be saved."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.test_page import ready, width, with_charts
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
    page = with_charts(open_page(address, viewport={"width": 1680, "height": 960}))
    filters = width(page, "conv2")
    for edit in range(EDITS):
        page.click('.column[data-layer="conv2"] button.more')
        page.wait_for_selector("#staging button.apply[aria-disabled=false]")
        page.click("#staging button.apply")
        page.wait_for_function("(n) => revacnn.nodes('conv2').length == n", arg=filters + edit + 1)
    page.wait_for_function("(n) => document.querySelectorAll('#records li').length >= n", arg=EDITS)
    seen = []
    for i, _ in enumerate(CHARTS):
        box = page.locator("footer .chart .plot").nth(i).bounding_box()
        for step in range(2, 39):
            page.mouse.move(box["x"] + box["width"] * step / 40, box["y"] + box["height"] / 2)
            tooltips = page.evaluate(TOOLTIPS)
            seen += tooltips
            assert sum(tooltip["height"] for tooltip in tooltips) < 200
            assert sum(tooltip["text"].count("conv2") for tooltip in tooltips) <= 4
    wait_for(lambda: bool(seen), what="a tooltip of a chart")


SIZE = {"width": 1680, "height": 960}
# The x range and the number of points of a chart's first curve.
SHOWN = """(name) => {
  const plot = Bokeh.documents[0].get_model_by_name(name)
  const source = plot.renderers.map((one) => one.data_source.data).find((data) => data.label)
  return {start: plot.x_range.start, end: plot.x_range.end, points: source?.step[0]?.length ?? 0}
}"""


def open_menu(page: Any, chart: str) -> None:
    page.click(f'.chart[data-plot={chart}] button[data-chart-action="menu"]')
    page.wait_for_selector("#chart-menu:popover-open")


def downloaded(page: Any, selector: str) -> Path:
    """Click and return the file that the page saves."""
    with page.expect_download() as download:
        page.click(selector)
    return Path(download.value.path())


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    return struct.unpack(">II", data[16:24])  # type: ignore[return-value]


def test_the_menu_of_a_chart_sets_its_scale_and_the_x_axis(address: str, open_page: Any) -> None:
    page = ready(open_page(address, viewport=SIZE))
    open_menu(page, "loss")
    page.click("#chart-menu button[data-option=linear]")
    page.wait_for_function("revacnn.parts.charts.scales.loss === 'linear'")
    page.locator("#chart-menu input[type=range]").fill("0.1")
    page.wait_for_function("revacnn.parts.charts.smoothing.loss === 0.1")
    page.click("#chart-menu button[data-option=epoch]")
    page.wait_for_function("revacnn.parts.charts.x_axis === 'epoch'")
    page.wait_for_function(
        """[...document.querySelectorAll("footer .note")]
          .every((note) => note.textContent === "by epoch")"""
    )
    pressed = page.locator("#chart-menu button[aria-pressed=true]").all_text_contents()
    assert pressed == ["linear", "epoch"]
    assert Axe().run(page, context="#chart-menu").response["violations"] == []
    page.keyboard.press("Escape")
    assert not page.is_visible("#chart-menu")


def test_a_zoomed_chart_keeps_its_range_until_all_is_shown(address: str, open_page: Any) -> None:
    page = with_charts(open_page(address, viewport=SIZE))
    page.wait_for_function(f"({SHOWN})('loss').points > 5")
    before = page.evaluate(SHOWN, "loss")
    page.hover(".chart[data-plot=loss] .plot")
    page.mouse.wheel(0, -400)
    page.wait_for_selector('.chart[data-plot=loss] button[data-chart-action="show-all"]:visible')
    zoomed = page.evaluate(SHOWN, "loss")
    assert zoomed["end"] - zoomed["start"] < before["end"] - before["start"]
    page.wait_for_function(f"(n) => ({SHOWN})('loss').points > n", arg=zoomed["points"] + 5)
    later = page.evaluate(SHOWN, "loss")
    assert (later["start"], later["end"]) == (zoomed["start"], zoomed["end"])
    page.dblclick(".chart[data-plot=loss] .plot")
    page.wait_for_selector(
        '.chart[data-plot=loss] button[data-chart-action="show-all"]', state="hidden"
    )
    page.wait_for_function(f"(end) => ({SHOWN})('loss').end > end", arg=before["end"])


def test_an_enlarged_chart_fills_the_page_until_escape(address: str, open_page: Any) -> None:
    page = with_charts(open_page(address, viewport=SIZE))
    page.click('.column[data-layer="conv2"] button.more')
    page.wait_for_selector("#staging button.apply[aria-disabled=false]")
    chart = page.locator(".chart[data-plot=layers_0]")
    chart.locator('button[data-chart-action="enlarge"]').click()
    page.wait_for_function("Bokeh.documents[0].get_model_by_name('layers_0').inner_width > 1200")
    page.keyboard.press("Escape")
    page.wait_for_function("Bokeh.documents[0].get_model_by_name('layers_0').inner_width < 600")
    assert page.is_visible("#staging button.apply")  # Escape has not discarded the change
    page.keyboard.press("Escape")
    page.wait_for_selector("#staging button.apply", state="hidden")


def test_charts_and_the_network_are_saved(address: str, open_page: Any) -> None:
    page = with_charts(open_page(address, viewport=SIZE))
    open_menu(page, "loss")
    width, height = png_size(downloaded(page, "#chart-menu button:text-is('PNG')"))
    assert width > 200
    assert height > 100
    table = downloaded(page, "#chart-menu button:text-is('CSV')").read_text()
    assert table.startswith("run,curve,batch,epoch,seconds,value\n")
    assert table.count("\n") > 3
    page.keyboard.press("Escape")
    page.click("button[data-pane=statistics]")  # its charts are parts of other parts
    page.wait_for_function("revacnn.parts.charts.made.includes('bars')")
    page.wait_for_selector(".charts .bars canvas:visible")
    open_menu(page, "bars")
    assert png_size(downloaded(page, "#chart-menu button:text-is('PNG')"))[0] > 100
    page.keyboard.press("Escape")
    drawing = downloaded(page, "button[data-save-network=svg]")
    texts = {one.text for one in ElementTree.parse(drawing).getroot().iter() if one.text}
    assert {"conv1", "conv2", "conv3"} <= texts
    width, _ = png_size(downloaded(page, "button[data-save-network=png]"))
    assert width >= 2 * page.evaluate("document.getElementById('plot').clientWidth") - 2


def test_a_second_run_is_laid_over_the_charts(
    tmp_path_factory: pytest.TempPathFactory, open_page: Any
) -> None:
    runtime = tmp_path_factory.mktemp("two-runs")
    with (
        training(runtime, "--net", "digits"),
        training(runtime, "--net", "digits"),
        server(runtime) as address,
    ):
        page = with_charts(open_page(address, viewport=SIZE))
        page.wait_for_function("revacnn.parts.charts.other_runs.length === 1")
        open_menu(page, "loss")
        page.select_option("#chart-menu select", index=1)
        for chart in ("loss", "layers_0"):
            page.wait_for_function(
                """(name) => Bokeh.documents[0].get_model_by_name(name).renderers
                  .some((one) => one.data_source.data.dash?.includes("dashed"))""",
                arg=chart,
            )
        page.wait_for_function("document.querySelector('footer .note').textContent.startsWith('┄')")
