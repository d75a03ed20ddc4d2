"""The table of layers and the pane of histograms in a real Chromium, with a simulated training."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.test_page import ready
from tests.viewer.processes import server, training

pytestmark = pytest.mark.browser

COLORS = """(name) => {
  const canvas = document.querySelector(`figure[data-histograms=${name}] canvas`)
  const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height)
  return new Set(new Uint32Array(data.buffer)).size
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    runtime = tmp_path_factory.mktemp("table")
    with training(runtime, "--net", "resnet152", "--hz", "5"), server(runtime) as address:
        yield address


@pytest.fixture
def page(address: str, open_page: Any) -> Any:
    return ready(open_page(address, viewport={"width": 1680, "height": 960}))


def names(page: Any) -> list[str]:
    found: list[str] = page.locator("#layer-table tbody th").all_inner_texts()
    return found


def test_the_table_sorts_saves_and_opens_layers(page: Any, tmp_path: Path) -> None:
    page.click("button[data-main-view=table]")
    page.wait_for_selector("#layer-table tbody tr")
    in_order = names(page)
    assert len(in_order) == 155
    expect(page.locator("#layer-totals")).to_contain_text("155 layers")
    page.click("#layer-table thead th[data-column=shape] button")
    header = page.locator("#layer-table thead th[data-column=shape]")
    expect(header).to_have_attribute("aria-sort", "descending")
    assert names(page)[0].startswith("layer4.")
    page.locator("#layer-table tbody tr").nth(2).click()
    expect(page.locator("#layer")).to_have_text(names(page)[2])
    expect(page.locator("#layer-table tbody tr[data-current=true]")).to_have_count(1)
    with page.expect_download() as saving:
        page.click("#layer-csv")
    saving.value.save_as(tmp_path / "layers.csv")
    text = (tmp_path / "layers.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["layer"] for row in rows] == in_order
    assert all(float(row["mean_abs_gradient"]) > 0 and int(row["macs"]) > 0 for row in rows)


def test_the_table_is_used_by_keyboard(page: Any) -> None:
    page.keyboard.press("g")
    page.wait_for_selector("#layer-table tbody th button:focus")
    first = page.evaluate("document.activeElement.textContent")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#layer")).not_to_have_text(first)
    focused = page.evaluate("document.activeElement.textContent")
    expect(page.locator("#layer")).to_have_text(focused)
    page.keyboard.press("g")
    expect(page.locator("#layer-table")).to_be_hidden()
    expect(page.locator("#plot")).to_be_focused()


def test_a_closed_table_receives_nothing(page: Any) -> None:
    assert page.evaluate("revacnn.parts.layer_statistics?.gradient ?? null") is None
    page.click("button[data-main-view=table]")
    page.wait_for_function("revacnn.parts.layer_statistics.gradient?.length == 155")
    page.evaluate("window.before = revacnn.parts.layer_statistics")
    page.wait_for_function("revacnn.parts.layer_statistics !== before")
    page.click("button[data-main-view=network]")
    page.wait_for_function("document.getElementById('layer-table').hidden")
    received = page.evaluate("window.last = revacnn.parts.layer_statistics, revacnn.received")
    page.wait_for_function("(n) => revacnn.received > n + 10", arg=received)
    page.evaluate("window.last = revacnn.parts.layer_statistics")
    page.wait_for_function("(n) => revacnn.received > n + 20", arg=received)
    assert page.evaluate("revacnn.parts.layer_statistics === last")


def test_histograms_of_the_opened_layer_grow_and_can_be_read(page: Any) -> None:
    page.click("button[data-pane=histograms]")
    page.wait_for_function("revacnn.parts.histograms.weights?.steps.length > 2")
    for name in ("weights", "gradients"):
        assert page.evaluate(COLORS, name) > 10
    facts = page.locator("figure[data-histograms=weights] .facts")
    expect(facts).to_contain_text("standard deviation")
    page.locator("figure[data-histograms=weights] canvas").focus()
    page.keyboard.press("ArrowUp")
    expect(facts).not_to_contain_text("standard deviation")
    page.hover("figure[data-histograms=weights] canvas")
    expect(facts).to_contain_text("%")


def test_the_chosen_image_shows_its_truth_and_the_prediction(page: Any) -> None:
    page.click("button[data-pane=maps]")
    expect(page.locator("#prediction")).to_contain_text("Choose a validation image")
    page.click(".pane.maps button[data-image='1']")
    expect(page.locator("#prediction")).to_contain_text("truth")
    expect(page.locator("#prediction .moment[data-correct] b").first).to_contain_text("flower")


ENDS_ARE_SEEN = """() => [...document.querySelectorAll("#layer-table tbody th button")].map((button) => {
  const range = document.createRange(), text = button.querySelector("bdi").firstChild
  range.setStart(text, text.length - 1)
  range.setEnd(text, text.length)
  const end = range.getBoundingClientRect(), {left, right} = button.getBoundingClientRect()
  return left < end.left && end.right <= right
})"""  # noqa: E501


def test_the_names_of_layers_were_cut_where_they_differ(address: str, open_page: Any) -> None:
    page = ready(open_page(address, viewport={"width": 1280, "height": 720}))
    page.keyboard.press("g")
    page.wait_for_selector("#layer-table tbody tr")
    assert set(page.evaluate(ENDS_ARE_SEEN)) == {True}
    shape = page.locator("#layer-table td[data-column=shape]").first
    expect(shape).to_have_attribute("title", shape.inner_text())
