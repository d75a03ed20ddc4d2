"""The layer panel in a real Chromium, on a real Bokeh server, with a simulated training."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from playwright.sync_api import expect

from tests.viewer.processes import server, training

pytestmark = pytest.mark.browser

VIEWS = ("coefficients", "gradients", "activations", "activation_gradients")
LAID_OUT = (
    "revacnn.views?.coefficients?.count > 0 && Object.values(revacnn.views).every("
    "(view) => view.data.status == '' && view.movingSince == null)"
)
# Size of every image in an SVG file, and how many colors it has once it is decoded.
DECODED_IMAGES = """() => Promise.all([...document.querySelectorAll("image")].map(async (image) => {
  const decoded = new Image()
  decoded.src = image.getAttribute("href")
  await decoded.decode()
  const html = "http://www.w3.org/1999/xhtml"
  const canvas = Object.assign(document.createElementNS(html, "canvas"),
                               {width: decoded.naturalWidth, height: decoded.naturalHeight})
  const ctx = canvas.getContext("2d")
  ctx.drawImage(decoded, 0, 0)
  const {data} = ctx.getImageData(0, 0, canvas.width, canvas.height)
  return [canvas.width, canvas.height, new Set(new Uint32Array(data.buffer)).size]
}))"""

CLICK_ON_FINDING = """(kind) => {
  const {groups} = revacnn.parts.layer_panel.findings.find((one) => one.kind == kind)
  document.querySelector(`#findings [data-kind="${kind}"]`).click()
  return [groups, revacnn.filterSelection.selected]
}"""


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    runtime = tmp_path_factory.mktemp("alexnet")
    with training(runtime, "--net", "alexnet", "--hz", "5"), server(runtime) as address:
        yield address


@pytest.fixture
def page(alexnet: str, open_page: Any) -> Any:
    """The panel of the first layer, with its layouts computed and without motion."""
    page = open_page(alexnet, viewport={"width": 1680, "height": 960})
    page.wait_for_function("window.revacnn?.ready === true")
    page.wait_for_function(LAID_OUT)
    return page


def position(page: Any, view: str, id_: int) -> tuple[float, float]:
    """Return the center of a filter in the window's pixels."""
    x, y = page.evaluate("([view, id]) => revacnn.views[view].screenPosition(id)", [view, id_])
    return x, y


def uncovered_filter(page: Any, view: str, skip: int = 0) -> int:
    """Return a filter whose center no other thumbnail covers."""
    found: list[int] = page.evaluate(
        """(name) => {
          const view = revacnn.views[name], at = view.positions(), half = view.side() / 2
          const covers = (a, b) => Math.max(Math.abs(a[0] - b[0]), Math.abs(a[1] - b[1])) <= half
          return view.ids.filter((_, i) => view.degenerateKind(i) == 0 &&
            at.every((other, k) => k == i || !covers(other, at[i])))
        }""",
        view,
    )
    return found[skip]


def wait_until_selected(page: Any, ids: list[int]) -> None:
    """Wait until the server confirms a selection."""
    script = "(ids) => String(revacnn.parts.layer_panel.selected) == String(ids)"
    page.wait_for_function(script, arg=ids)


def count_colors(page: Any, view: str) -> int:
    """Return how many different colors a view shows."""
    found: int = page.evaluate(
        """(name) => {
          const {canvas, context} = revacnn.views[name]
          const {data} = context.getImageData(0, 0, canvas.width, canvas.height)
          return new Set(new Uint32Array(data.buffer)).size
        }""",
        view,
    )
    return found


def test_four_views_arrange_the_filters_by_similarity(page: Any) -> None:
    for view in VIEWS:
        assert page.evaluate("(view) => revacnn.views[view].count", view) == 64
        assert count_colors(page, view) > 40
    positions = page.evaluate("Array.from(revacnn.views.coefficients.data.positions)")
    assert len(set(positions)) > 64
    assert max(map(abs, positions)) <= 1.3


def test_a_click_selects_the_filter_in_every_view(page: Any) -> None:
    id_ = uncovered_filter(page, "gradients")
    page.mouse.click(*position(page, "gradients", id_))

    wait_until_selected(page, [id_])
    index = page.evaluate("(id) => revacnn.views.coefficients.ids.indexOf(id)", id_)
    page.wait_for_function("(i) => revacnn.parts.selection.index == i", arg=index)
    expect(page.locator("#filter")).to_have_text(f"filter {index}")
    assert page.evaluate("revacnn.filterSelection.selected") == [id_]


def test_hover_names_and_enlarges_the_filter(page: Any) -> None:
    id_ = uncovered_filter(page, "activations")
    page.mouse.move(*position(page, "activations", id_))
    page.wait_for_selector("#tooltip:not([hidden]) canvas.enlarged")

    index = page.evaluate("(id) => revacnn.views.activations.ids.indexOf(id)", id_)
    expect(page.locator("#tooltip")).to_contain_text(f"features.0 · filter {index}")
    page.mouse.move(5, 5)
    page.wait_for_selector("#tooltip", state="hidden")


@pytest.mark.parametrize("shape", ["box", "lasso"])
def test_box_and_lasso_select_several_filters(page: Any, shape: str) -> None:
    page.click(f'button[data-shape="{shape}"]')
    box = page.locator('[data-view="activations"] canvas').bounding_box()
    left, top = box["x"] + 1, box["y"] + 1
    right, bottom = left + box["width"] - 3, top + box["height"] - 3
    page.mouse.move(left, top)
    page.mouse.down()
    corners = [(right, top), (right, bottom), (left, bottom)] if shape == "lasso" else []
    for corner in corners or [(right, bottom)]:
        page.mouse.move(*corner, steps=4)
    page.mouse.up()

    page.wait_for_function("revacnn.parts.layer_panel.selected.length == 64")
    expect(page.locator("#filter")).to_contain_text("and 63 more")
    page.keyboard.press("Delete")
    page.wait_for_selector("#staging .row[data-plan=refused]")  # the last filter must stay
    page.keyboard.press("Escape")
    page.wait_for_selector("#staging", state="hidden")


def test_dragging_a_filter_among_others_stages_setting_it_to_their_mean(page: Any) -> None:
    first = uncovered_filter(page, "coefficients")
    second = uncovered_filter(page, "coefficients", skip=5)
    page.mouse.move(*position(page, "coefficients", first))
    page.mouse.down()
    x, y = position(page, "coefficients", second)
    page.mouse.move(x + 3, y + 3, steps=6)
    page.mouse.up()

    page.wait_for_selector("#staging .row[data-plan=planned]")
    title = page.inner_text("#staging .title")
    assert " to the mean of " in title
    target = page.evaluate("(id) => revacnn.views.coefficients.ids.indexOf(id)", second)
    assert str(target) in title.split("mean of")[1].replace(",", " ").split()
    page.click("#staging .apply")
    page.wait_for_selector("#reply[data-state=applied]")


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_another_method_computes_another_layout(page: Any, method: str) -> None:
    other = "pca" if method == "tsne" else "tsne"
    positions = "Array.from(revacnn.views.coefficients.data.positions).join()"
    for name in (other, method):
        before = page.evaluate(positions)
        page.click(f'button[data-method="{name}"]')
        page.wait_for_function("(m) => revacnn.parts.layer_panel.method == m", arg=name)
        if page.get_attribute(f'button[data-method="{other}"]', "aria-pressed") == "false":
            page.wait_for_function(f"(old) => {positions} != old", arg=before)
    page.wait_for_function(LAID_OUT)


def test_maps_are_sorted_and_show_the_chosen_image(page: Any) -> None:
    page.click('button[data-pane="maps"]')
    page.wait_for_function(
        "revacnn.views.maps?.count == 64 && revacnn.parts.input?.title?.includes('batch')"
    )
    # Pressed and read in one step: data that arrive between are sorted only some seconds later.
    order = """([name, column]) => {
      document.querySelector(`button[data-order="${name}"]`).click()
      const view = revacnn.views.maps
      view.arrange()
      const {values} = view.data
      return view.ids.map((_, i) => [view.ranks[i], column < 0 ? i : -values[2 * i + column]])
        .sort((a, b) => a[0] - b[0]).map((pair) => pair[1])
    }"""
    for name, column in (("index", -1), ("gradient", 0)):
        found = page.evaluate(order, [name, column])
        assert found == sorted(found)
    page.click('.pane.maps button[data-image="1"]')
    page.wait_for_function("revacnn.parts.input.title.includes('validation image 0')")
    page.click('.pane.maps button[data-image="1"]')
    page.wait_for_function("revacnn.parts.input.title.includes('validation image 1')")
    page.click('.pane.maps button[data-image="batch"]')
    page.wait_for_function("revacnn.parts.input.title.includes('batch')")
    page.click('button[data-pane="layer"]')


def test_a_view_is_saved_as_table_and_image(page: Any, tmp_path: Path) -> None:
    page.hover('[data-view="coefficients"] canvas')
    with page.expect_download() as table:
        page.click('[data-view="coefficients"] button[data-save="csv"]')
    with page.expect_download() as image:
        page.click('[data-view="coefficients"] button[data-save="png"]')

    table.value.save_as(tmp_path / "table.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    assert [row["filter"] for row in rows] == [str(i) for i in range(64)]
    assert all(-1.3 <= float(row["x"]) <= 1.3 for row in rows)
    image.value.save_as(tmp_path / "view.png")
    assert (tmp_path / "view.png").read_bytes().startswith(b"\x89PNG")
    assert table.value.suggested_filename.startswith("features.0-coefficients-step")


@pytest.mark.parametrize("view", ["coefficients", "maps"])
def test_a_saved_drawing_shows_every_filter(page: Any, view: str, tmp_path: Path) -> None:
    if view == "maps":
        page.click('button[data-pane="maps"]')
        page.wait_for_function("revacnn.views.maps?.count == 64")
        page.wait_for_function("revacnn.views.maps.movingSince == null")
    page.hover("#maps" if view == "maps" else f'[data-view="{view}"] canvas')
    with page.expect_download() as drawing:
        page.click(f'[data-view="{view}"] button[data-save="svg"]')
    path = tmp_path / drawing.value.suggested_filename
    drawing.value.save_as(path)
    page.click('button[data-pane="layer"]')

    root = ElementTree.parse(path).getroot()
    names = "{http://www.w3.org/2000/svg}"
    groups = [group for group in root.iter(f"{names}g") if "data-filter" in group.attrib]
    assert sorted(int(group.attrib["data-filter"]) for group in groups) == list(range(64))
    for group in groups:
        title, rect = group.find(f"{names}title"), group.find(f"{names}rect")
        assert title is not None
        assert f"filter {group.attrib['data-filter']} ·" in str(title.text)
        assert rect is not None
        assert rect.attrib["stroke"]
    assert path.name.startswith(f"features.0-{view}-step")
    assert path.suffix == ".svg"

    sheet = page.context.new_page()
    sheet.goto(path.as_uri())
    images = sheet.evaluate(DECODED_IMAGES)
    assert len(images) == 64
    assert all(width == height == (11 if view == "coefficients" else 24)
               for width, height, _ in images)  # fmt: skip
    assert sum(colors for *_, colors in images) / 64 > 10
    assert sheet.evaluate("document.documentElement.clientWidth") > 300
    sheet.close()


def test_findings_select_filters_group_by_group(page: Any) -> None:
    chosen = []
    for kind in ("near_duplicates", "near_duplicates", "single_color"):
        page.wait_for_selector(f'#findings [data-kind="{kind}"]')
        groups, picked = page.evaluate(CLICK_ON_FINDING, kind)  # they change as filters learn
        assert picked in groups
        wait_until_selected(page, picked)
        chosen.append(picked)
    assert len(groups) == 1
    assert chosen[0] != chosen[1]

    page.evaluate(CLICK_ON_FINDING, "near_duplicates")
    page.wait_for_selector('#merge:not([aria-disabled="true"])')
    page.click("#merge")
    page.wait_for_selector("#staging .row[data-plan=planned]")
    page.keyboard.press("Escape")


def test_all_selected_filters_have_a_ring_in_the_network(page: Any) -> None:
    ids = page.evaluate("revacnn.views.coefficients.ids.slice(10, 15)")
    page.evaluate("(ids) => revacnn.sendCommand('select_filters_by_id', {ids})", ids)
    wait_until_selected(page, ids)
    page.wait_for_function("revacnn.selection.also.length == 4")
    ringed = page.evaluate(
        """() => new Promise((resolve) => {
          const {network, parts, selection: {also, selected}} = revacnn
          network.nodes.whenDrawn(() =>
            resolve([selected, ...also].map((i) => parts.nodes.first[i])))
        })"""
    )
    assert sorted(ringed) == [10, 11, 12, 13, 14]


def test_filters_of_many_input_channels_show_strongest_slice_or_mean(page: Any) -> None:
    assert page.is_hidden("#slices")
    page.evaluate(
        "revacnn.sendCommand('select_largest_gradient_filter', {layer: 1, first: 0, last: 0})"
    )
    page.wait_for_selector("#slices:not([hidden])")
    page.wait_for_function("revacnn.views.coefficients.data.layer == 'features.3'")
    assert page.get_attribute('button[data-slices="strongest"]', "aria-pressed") == "true"
    for name in ("mean", "strongest"):
        page.click(f'button[data-slices="{name}"]')
        page.wait_for_selector(f'button[data-slices="{name}"][aria-pressed="true"]')
        slices = "revacnn.views.coefficients.data.slices"
        page.wait_for_function(f"(name) => {slices} == name", arg=name)
    page.evaluate(
        "revacnn.sendCommand('select_largest_gradient_filter', {layer: 0, first: 0, last: 0})"
    )
    page.wait_for_selector("#slices", state="hidden")


def test_the_statistics_pane_shows_charts(page: Any) -> None:
    page.click('button[data-pane="statistics"]')
    page.wait_for_selector(".charts .bars canvas:visible")
    page.click('button[data-pane="layer"]')
    page.wait_for_selector('[data-view="coefficients"] canvas', state="visible")


def test_views_are_drawn_in_both_themes(page: Any) -> None:
    page.click("#theme")
    assert count_colors(page, "coefficients") > 40
    page.click("#theme")
