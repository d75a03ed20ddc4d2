"""The panel of a layer in a real Chromium, on a real bokeh server, with a made-up training."""

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

CLOUDS = ("coefficients", "gradients", "activations", "activation_gradients")
LAID_OUT = (
    "revacnn.views?.coefficients?.n > 0 && Object.values(revacnn.views).every("
    "(view) => view.data.status == '' && !view.began)"
)
# Size of every picture in an SVG file, and how many colours it has once it is decoded.
DRAWN = """async () => Promise.all([...document.querySelectorAll("image")].map(async (image) => {
  const picture = new Image()
  picture.src = image.getAttribute("href")
  await picture.decode()
  const html = "http://www.w3.org/1999/xhtml"
  const canvas = Object.assign(document.createElementNS(html, "canvas"),
                               {width: picture.naturalWidth, height: picture.naturalHeight})
  const ctx = canvas.getContext("2d")
  ctx.drawImage(picture, 0, 0)
  const {data} = ctx.getImageData(0, 0, canvas.width, canvas.height)
  return [canvas.width, canvas.height, new Set(new Uint32Array(data.buffer)).size]
}))"""

CLICK_ON_FINDING = """(kind) => {
  const {groups} = revacnn.parts.panel.findings.find((one) => one.kind == kind)
  document.querySelector(`#findings [data-kind="${kind}"]`).click()
  return [groups, revacnn.shown.picked]
}"""


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    runtime = tmp_path_factory.mktemp("alexnet")
    with training(runtime, "--net", "alexnet", "--hz", "5"), server(runtime) as address:
        yield address


@pytest.fixture
def page(alexnet: str, open_page: Any) -> Any:
    """The panel of the first layer, laid out, without motion."""
    page = open_page(alexnet, reduced_motion="reduce", viewport={"width": 1680, "height": 960})
    page.wait_for_function("window.revacnn?.ready === true")
    page.wait_for_function(LAID_OUT)
    return page


def at(page: Any, view: str, id_: int) -> tuple[float, float]:
    x, y = page.evaluate("([view, id]) => revacnn.views[view].at(id)", [view, id_])
    return x, y


def alone(page: Any, view: str, skip: int = 0) -> int:
    """A filter whose centre no other thumbnail lies nearer to."""
    found: list[int] = page.evaluate(
        """(name) => {
          const view = revacnn.views[name], at = view.positions(), half = view.side() / 2
          return view.ids.filter((_, i) => view.odd[i] == 0 && at.every((other, k) => k == i ||
            Math.max(Math.abs(other[0] - at[i][0]), Math.abs(other[1] - at[i][1])) > half))
        }""",
        view,
    )
    return found[skip]


def selected(page: Any, ids: list[int]) -> None:
    page.wait_for_function("(ids) => String(revacnn.parts.panel.selected) == String(ids)", arg=ids)


def colours(page: Any, view: str) -> int:
    """How many different colours a view shows."""
    found: int = page.evaluate(
        """(name) => {
          const {canvas, ctx} = revacnn.views[name]
          const {data} = ctx.getImageData(0, 0, canvas.width, canvas.height)
          return new Set(new Uint32Array(data.buffer)).size
        }""",
        view,
    )
    return found


def test_four_views_show_the_filters_by_likeness(page: Any) -> None:
    for view in CLOUDS:
        assert page.evaluate("(view) => revacnn.views[view].n", view) == 64
        assert colours(page, view) > 40
    places = page.evaluate("Array.from(revacnn.views.coefficients.places)")
    assert len(set(places)) > 64
    assert max(map(abs, places)) <= 1.3


def test_a_click_selects_everywhere(page: Any) -> None:
    id_ = alone(page, "gradients")
    page.mouse.click(*at(page, "gradients", id_))

    selected(page, [id_])
    index = page.evaluate("(id) => revacnn.views.coefficients.ids.indexOf(id)", id_)
    page.wait_for_function("(i) => revacnn.parts.selection.index == i", arg=index)
    expect(page.locator("#filter")).to_have_text(f"filter {index}")
    for view in CLOUDS:
        assert page.evaluate("(view) => revacnn.views[view].picked()", view) == [id_]


def test_hovering_names_and_enlarges(page: Any) -> None:
    id_ = alone(page, "activations")
    page.mouse.move(*at(page, "activations", id_))
    page.wait_for_selector("#tip:not([hidden]) canvas.enlarged")

    index = page.evaluate("(id) => revacnn.views.activations.ids.indexOf(id)", id_)
    expect(page.locator("#tip")).to_contain_text(f"features.0 · filter {index}")
    page.mouse.move(5, 5)
    page.wait_for_selector("#tip", state="hidden")


@pytest.mark.parametrize("shape", ["box", "lasso"])
def test_several_are_selected_by_box_or_lasso_and_removed(page: Any, shape: str) -> None:
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

    page.wait_for_function("revacnn.parts.panel.selected.length == 64")
    expect(page.locator("#filter")).to_contain_text("and 63 more")
    page.keyboard.press("Delete")
    page.wait_for_selector("#staging .row[data-plan=refused]")  # the last filter must stay
    page.keyboard.press("Escape")
    page.wait_for_selector("#staging", state="hidden")


def test_a_filter_dragged_among_others_is_staged_to_become_their_mean(page: Any) -> None:
    first, second = alone(page, "coefficients"), alone(page, "coefficients", skip=5)
    page.mouse.move(*at(page, "coefficients", first))
    page.mouse.down()
    x, y = at(page, "coefficients", second)
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
def test_another_method_lays_out_anew(page: Any, method: str) -> None:
    other = "pca" if method == "tsne" else "tsne"
    for name in (other, method):
        before = page.evaluate("Array.from(revacnn.views.coefficients.places).join()")
        page.click(f'button[data-method="{name}"]')
        page.wait_for_function("(m) => revacnn.parts.panel.method == m", arg=name)
        if page.get_attribute(f'button[data-method="{other}"]', "aria-pressed") == "false":
            page.wait_for_function(
                "(old) => Array.from(revacnn.views.coefficients.places).join() != old", arg=before
            )
    page.wait_for_function(LAID_OUT)


def test_maps_are_sorted_and_images_stepped_through(page: Any) -> None:
    page.click('button[data-pane="maps"]')
    page.wait_for_function(
        "revacnn.views.maps?.n == 64 && revacnn.parts.input?.title.includes('batch')"
    )
    values = "revacnn.views.maps.values"
    # Pressed and read in one go: data that come between would be sorted only a while later.
    order = f"""([name, column]) => {{
      document.querySelector(`button[data-order="${{name}}"]`).click()
      const view = revacnn.views.maps
      return view.ids.map((_, i) => [view.rank[i], column < 0 ? i : -{values}[2 * i + column]])
        .sort((a, b) => a[0] - b[0]).map((pair) => pair[1])
    }}"""
    for name, column in (("index", -1), ("gradient", 0)):
        found = page.evaluate(order, [name, column])
        assert found == sorted(found)
    page.click("#image-after")
    page.wait_for_function("revacnn.parts.input.title.includes('validation image 0')")
    page.click("#image-after")
    page.wait_for_function("revacnn.parts.input.title.includes('validation image 1')")
    page.click("#image-batch")
    page.wait_for_function("revacnn.parts.input.title.includes('batch')")
    page.click('button[data-pane="layer"]')


def test_views_are_saved_as_table_and_picture(page: Any, tmp_path: Path) -> None:
    page.hover('[data-view="coefficients"] canvas')
    with page.expect_download() as table:
        page.click('[data-view="coefficients"] button[data-save="csv"]')
    with page.expect_download() as picture:
        page.click('[data-view="coefficients"] button[data-save="png"]')

    table.value.save_as(tmp_path / "table.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    assert [row["filter"] for row in rows] == [str(i) for i in range(64)]
    assert all(-1.3 <= float(row["x"]) <= 1.3 for row in rows)
    picture.value.save_as(tmp_path / "view.png")
    assert (tmp_path / "view.png").read_bytes().startswith(b"\x89PNG")
    assert table.value.suggested_filename.startswith("features.0-coefficients-step")


@pytest.mark.parametrize("view", ["coefficients", "maps"])
def test_a_saved_drawing_opens_and_shows_every_filter(page: Any, view: str, tmp_path: Path) -> None:
    if view == "maps":
        page.click('button[data-pane="maps"]')
        page.wait_for_function("revacnn.views.maps?.n == 64 && !revacnn.views.maps.began")
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
    pictures = sheet.evaluate(DRAWN)
    assert len(pictures) == 64
    assert all(width == height == (11 if view == "coefficients" else 24)
               for width, height, _ in pictures)  # fmt: skip
    assert sum(colours for *_, colours in pictures) / 64 > 10
    assert sheet.evaluate("document.documentElement.clientWidth") > 300
    sheet.close()


def test_what_is_to_be_noticed_selects_the_filters_and_steps_through_the_groups(page: Any) -> None:
    chosen = []
    for kind in ("near_duplicates", "near_duplicates", "single_color"):
        page.wait_for_selector(f'#findings [data-kind="{kind}"]')
        groups, picked = page.evaluate(CLICK_ON_FINDING, kind)  # they change as filters learn
        assert picked in groups
        selected(page, picked)
        chosen.append(picked)
    assert len(groups) == 1
    assert chosen[0] != chosen[1]

    page.evaluate(CLICK_ON_FINDING, "near_duplicates")
    page.wait_for_selector('#merge:not([aria-disabled="true"])')
    page.click("#merge")
    page.wait_for_selector("#staging .row[data-plan=planned]")
    page.keyboard.press("Escape")


def test_all_selected_filters_are_ringed_in_the_network(page: Any) -> None:
    ids = page.evaluate("revacnn.views.coefficients.ids.slice(10, 15)")
    page.evaluate("(ids) => revacnn.shown.pick(ids)", ids)
    selected(page, ids)
    page.wait_for_function("revacnn.network._told.also.length == 4")
    ringed = page.evaluate(
        """() => new Promise((resolve) => {
          const {network} = revacnn, {nodes, _told: {also, chosen}} = network
          nodes.when_drawn(() => resolve([chosen, ...also].map((i) => network.value("first", i))))
        })"""
    )
    assert sorted(ringed) == [10, 11, 12, 13, 14]


def test_the_pictures_of_a_layer_of_many_inputs_show_strongest_slice_or_mean(page: Any) -> None:
    assert page.is_hidden("#slices")
    page.evaluate("revacnn.send('select', {layer: 1, first: 0, last: 0})")
    page.wait_for_selector("#slices:not([hidden])")
    page.wait_for_function("revacnn.views.coefficients.data.layer == 'features.3'")
    assert page.get_attribute('button[data-slices="strongest"]', "aria-pressed") == "true"
    for name in ("mean", "strongest"):
        page.click(f'button[data-slices="{name}"]')
        page.wait_for_selector(f'button[data-slices="{name}"][aria-pressed="true"]')
        pictures = "revacnn.views.coefficients.data.slices"
        page.wait_for_function(f"(name) => {pictures} == name", arg=name)
    page.evaluate("revacnn.send('select', {layer: 0, first: 0, last: 0})")
    page.wait_for_selector("#slices", state="hidden")


def test_statistics_stay_available(page: Any) -> None:
    page.click('button[data-pane="statistics"]')
    page.wait_for_selector(".charts .bars canvas:visible")
    page.click('button[data-pane="layer"]')
    page.wait_for_selector('[data-view="coefficients"] canvas', state="visible")


def test_both_themes(page: Any) -> None:
    page.click("#theme")
    assert colours(page, "coefficients") > 40
    page.click("#theme")
