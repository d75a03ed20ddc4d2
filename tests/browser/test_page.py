"""The page in a real Chromium, on a real bokeh server, with a simulated training."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.viewer.processes import server, training, wait_for

pytestmark = pytest.mark.browser

READY = "window.revacnn?.ready === true"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a small training; tests may change the network, but not end the run."""
    runtime = tmp_path_factory.mktemp("digits")
    with training(runtime, "--net", "digits", "--refuse", "conv3"), server(runtime) as address:
        yield address


def with_charts(page: Any) -> Any:
    """Wait until the charts of the footer are made, after the first picture."""
    ready(page).wait_for_function("revacnn.parts.charts?.made?.length >= 4")
    return page


def ready(page: Any) -> Any:
    page.wait_for_function(READY)
    page.wait_for_function("revacnn.parts.header.fields.some((field) => field.label == 'Loss')")
    return page


def nodes(page: Any, layer: str) -> list[dict[str, float]]:
    found: list[dict[str, float]] = page.evaluate("(layer) => revacnn.nodes(layer)", layer)
    return found


def width(page: Any, layer: str) -> int:
    script = "(name) => revacnn.parts.network_layout.layers.find((one) => one.name == name).filters"
    found: int = page.evaluate(script, layer)
    return found


def click_node(page: Any, layer: str, index: int) -> None:
    node = nodes(page, layer)[index]
    page.mouse.click(node["x"], node["y"])
    page.wait_for_function(
        "([layer, index]) => revacnn.parts.selection_panel.layer == layer && "
        "revacnn.parts.selection.index == index",
        arg=[layer, index],
    )


def pixels(page: Any) -> bytes:
    """The network view as it is drawn now."""
    found: bytes = page.locator("#plot").screenshot()
    return found


def test_the_page_fills_and_nodes_move(digits: str, open_page: Any) -> None:
    page = ready(open_page(digits, reduced_motion="no-preference"))
    expect(page.locator("#model")).to_have_text("DigitsNet")
    assert page.get_attribute("#dot", "data-kind") == "training"
    for name in ("conv1", "conv2", "conv3"):
        assert len(nodes(page, name)) == width(page, name)
    expect(page.locator(".column >> nth=0")).to_contain_text("conv1")
    before = page.evaluate("[revacnn.frames, revacnn.received]")
    first = pixels(page)
    wait_for(lambda: pixels(page) != first, what="movement")
    page.wait_for_function(
        "([f, s]) => revacnn.frames > f + 10 && revacnn.received > s + 5", arg=before
    )
    page.wait_for_function("revacnn.network.pathDrawings > 3")
    page.wait_for_function("/\\d+ Hz · \\d+ fps/.test(document.getElementById('rate').textContent)")


PATHS_ARE_SEEN = """() => {
  const {canvas} = revacnn.network.paths, {width, height} = canvas
  const {data} = canvas.getContext("2d").getImageData(0, 0, width, height)
  return data.some((value, i) => i % 4 == 3 && value > 0)
}"""


@pytest.mark.parametrize(
    "refuses",
    ['setTimeout(() => this.onerror?.(new Event("error")))', 'throw new Error("forbidden")'],
    ids=["later", "immediately"],
)
def test_without_workers_the_page_draws_nodes_and_paths(
    digits: str, open_page: Any, refuses: str
) -> None:
    script = "window.Worker = class { constructor() { refuse } postMessage() {} terminate() {} }"
    page = ready(
        open_page(digits, script=script.replace("refuse", refuses), reduced_motion="no-preference")
    )
    frames = page.evaluate("revacnn.network.nodes.frames")
    page.wait_for_function("(n) => revacnn.network.nodes.frames > n + 30", arg=frames)
    first = pixels(page)
    wait_for(lambda: pixels(page) != first, what="movement")
    sent = page.evaluate("revacnn.received")
    page.wait_for_function("(n) => revacnn.received > n + 5", arg=sent)
    page.wait_for_function("revacnn.network.pathDrawings > 3")
    page.wait_for_function(PATHS_ARE_SEEN)


# Imports a module of the page: the same one that the page uses.
IMPORT = "const load = (name) => import(`${location.pathname}/static/${name}`)"

# Drawn by the page, so that the pixels can be read: 1000 paths as a whole, then in strips with new
# weights, changed once more amid the strips, then those as a whole.
STRIPS = """async () => {
  IMPORT
  const {WorkerCanvas} = await load("shared/worker_canvas.js")
  const {paintPaths} = await load("network/path_painter.js")
  const {colors} = await load("shared/theme.js")
  const canvas = document.createElement("canvas"), n = 1000
  canvas.transferControlToOffscreen = null
  const of = (value) => Float32Array.from({length: n}, (_, i) => value(i)), none = []
  const paths = new WorkerCanvas(canvas, null, paintPaths)
  const places = {
    width: 301, height: 200, ratio: 1, colors: colors(), startY: null,
    transform: {left: 0, top: 0, scaleX: 1, scaleY: 1},
    arcs: {
      x0: none, y0: none, a: none, level: none, b: none, x1: none, y1: none,
      width: none, is_sum: none,
    },
    arcWeight: none, pathWidth: of(() => 3),
    mark: Uint8Array.from({length: n}, (_, i) => i == 500),
    x: of((i) => i % 10 * 29 + 5), x1: of((i) => i % 10 * 29 + 30),
    y: of((i) => i / 10 * 2), y1: of((i) => 200 - i / 5),
  }
  const draw = (changes) => new Promise((resolve) => {
    const frames = paths.frames
    paths.update({...changes, framesLeft: Infinity})
    paths.whenDrawn(() => {
      const {data} = canvas.getContext("2d").getImageData(0, 0, 301, 200)
      resolve([paths.frames - frames, data])
    })
  })
  const seen = (data, i) => data[i] * data[i | 3] / 255 // on black; a clear pixel has any color
  const difference = (a, b) => (sum, _, i) => sum + Math.abs(seen(a, i) - seen(b, i))
  const distance = (a, b) => a.reduce(difference(a, b), 0) / a.length
  const weight = of((i) => 1 - i / n)
  const [once, first] = await draw({...places, weight: of((i) => i / n), whole: true})
  paths.update({weight: of(() => 0.3), framesLeft: Infinity})
  await new Promise(requestAnimationFrame)
  const [strips, swept] = await draw({weight})
  const [again, whole] = await draw({weight, whole: true})
  return {once, strips, again, change: distance(first, swept), error: distance(swept, whole)}
}""".replace("IMPORT", IMPORT)


def test_paths_drawn_in_strips_look_like_paths_drawn_at_once(digits: str, open_page: Any) -> None:
    page = ready(open_page(digits))
    found = page.evaluate(STRIPS)
    assert found["once"] == found["again"] == 1
    assert found["strips"] >= 3
    # The browser rounds the edges of strips.
    assert found["error"] < 0.02 * found["change"]


def test_the_charts_by_layer_have_a_curve_for_each(digits: str, open_page: Any) -> None:
    page = with_charts(open_page(digits))
    page.wait_for_function(
        "['layers_0', 'layers_1'].every((name) => {"
        "  const source = Bokeh.documents[0].get_model_by_name(`${name}_curves`);"
        "  const column = (of) => source.data.get?.(of) ?? source.data[of];"
        "  return column('layer').length == 3 && column('value')[2].length > 3"
        "    && column('value')[2].length == column('step')[2].length"
        "    && column('value')[2][0] > 0 && column('value')[2][0] != column('value')[1][0] })"
    )


def test_every_snapshot_has_its_times(digits: str, open_page: Any) -> None:
    page = ready(open_page(digits))
    page.wait_for_function("revacnn.times.length > 5")
    for times in page.evaluate("revacnn.times"):
        assert len(times) == 5
        assert all(later - earlier >= -1 for earlier, later in pairwise(times))  # whole ms


def test_painted_is_the_later_of_page_and_node_canvas(digits: str, open_page: Any) -> None:
    """Not when the page receives the report, which it may be too busy for."""
    page = ready(open_page(digits))
    script = """async () => {
      const {nodes} = revacnn.network
      const paintedNext = (drawnAt) => new Promise((resolve) => {
        const before = revacnn.times.at(-1)?.[0]
        nodes.whenDrawn = (callback) => { nodes.drawnAt = drawnAt; callback() }
        const look = () => {
          const newest = revacnn.times.at(-1)
          if (newest == null || newest[0] === before) return setTimeout(look, 10)
          resolve(newest[4] - newest[3])
        }
        look()
      })
      const now = Date.now(), later = now + 600000
      const found = [await paintedNext(later), await paintedNext(later), await paintedNext(now)]
      const last = await paintedNext(now)
      delete nodes.whenDrawn // that of its class
      return [found[1], last]
    }"""
    by_nodes, by_page = page.evaluate(script)
    assert by_nodes > 300_000
    assert 0 <= by_page < 300_000


def test_reduced_motion_stops_the_nodes(digits: str, open_page: Any) -> None:
    page = ready(open_page(digits))
    assert page.evaluate("revacnn.motion") == 0
    assert page.input_value("#motion") == "0"


def test_hover_describes_a_node_and_a_click_selects_it(digits: str, open_page: Any) -> None:
    page = ready(open_page(digits))
    node = nodes(page, "conv2")[4]
    page.mouse.move(node["x"] + 1, node["y"] + 1)
    page.wait_for_selector("#tooltip:not([hidden])")
    expect(page.locator("#tooltip")).to_contain_text("conv2 · filter 4")
    expect(page.locator("#tooltip")).to_contain_text("mean |∇|")
    click_node(page, "conv2", 4)
    expect(page.locator("#layer")).to_have_text("conv2")
    expect(page.locator("#filter")).to_have_text(re.compile("^filter 4"))
    page.keyboard.press("ArrowDown")
    page.wait_for_function("revacnn.parts.selection.index == 5")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("revacnn.parts.selection_panel.layer == 'conv1'")


def test_hover_shows_coupled_filters(tmp_path: Path, open_page: Any) -> None:
    with training(tmp_path, "--net", "resnet18"), server(tmp_path) as address:
        page = ready(open_page(address))
        node = nodes(page, "layer1.0.conv2")[9]
        page.mouse.move(node["x"], node["y"])
        page.wait_for_selector("#tooltip .coupled")
        expect(page.locator("#tooltip")).to_contain_text("coupled with")
        assert len(page.evaluate("revacnn.selection.coupled")) == 3
        assert page.is_hidden("#staging")
        # The network gets another layout under a resting pointer.
        page.evaluate("revacnn.deliver('network_layout', revacnn.parts.network_layout)")
        assert page.is_hidden("#tooltip")
        page.wait_for_selector("#tooltip .coupled")


def test_remove_a_filter(digits: str, open_page: Any) -> None:
    page = ready(open_page(digits))
    before = width(page, "conv2")
    click_node(page, "conv2", 6)
    page.keyboard.press("Delete")
    page.wait_for_selector("#staging .row[data-plan=planned]")
    expect(page.locator("#staging")).to_contain_text("Remove conv2 · filter 6 at the next batch")
    expect(page.locator("#staging .detail")).to_contain_text("parameters")
    page.wait_for_function("revacnn.nodes('conv2')[6].state == 3")
    page.keyboard.press("Escape")
    page.wait_for_selector("#staging", state="hidden")
    page.click("#remove")
    page.wait_for_selector("#staging .row[data-plan=planned]")
    page.click("#staging button.apply")
    page.wait_for_selector("#reply[data-state=applied]")
    page.wait_for_function("(n) => revacnn.nodes('conv2').length == n", arg=before - 1)
    expect(page.locator("#reply")).to_contain_text(f"conv2: {before - 1} filters")
    expect(page.locator("#records li >> nth=0")).to_contain_text("applied at batch")


def select_batches_of_a_trial(page: Any) -> None:
    """Stage a removal, and select the text of the field beside Try."""
    # While a trial is undecided, as one that a failed test has left, the run refuses edits.
    if page.is_visible("#trial[data-stage=undecided]"):
        page.click("#trial button.discard")
        page.wait_for_selector("#trial", state="hidden")
    click_node(page, "conv1", 1)
    page.keyboard.press("Delete")
    page.wait_for_selector("#staging button.try[aria-disabled=false]")
    page.focus("#staging .batches input")
    page.keyboard.press("Control+a")


def test_a_change_is_tried_and_decided_with_the_keyboard(digits: str, open_page: Any) -> None:
    page = ready(open_page(digits))
    select_batches_of_a_trial(page)
    page.keyboard.type("12")
    page.keyboard.press("Tab")
    expect(page.locator("#staging button.try")).to_have_attribute(
        "title", re.compile("training waits")
    )
    page.wait_for_selector("#staging button.try[aria-disabled=false]")
    for decision in ("discard", "keep"):
        page.focus("#staging button.try")
        page.keyboard.press("Enter")
        page.wait_for_selector("#trial[data-stage=undecided]")
        expect(page.locator("#staging")).to_be_hidden()
        expect(page.locator("#trial .detail")).to_contain_text("mean of 12 batches")
        expect(page.locator("#trial polyline")).to_have_count(2)
        page.focus(f"#trial button.{decision}")
        page.keyboard.press("Enter")
        page.wait_for_selector("#trial", state="hidden")
        page.keyboard.press("Delete")
        page.wait_for_selector("#staging button.try[aria-disabled=false]")
    page.keyboard.press("Escape")


def test_a_redraw_kept_the_focus_but_not_the_selected_text(digits: str, open_page: Any) -> None:
    """What was typed over the number of batches was added to it: 12 became 2012."""
    page = ready(open_page(digits))
    select_batches_of_a_trial(page)
    page.evaluate("revacnn.deliver('staging', revacnn.parts.staging)")
    page.keyboard.type("12")
    expect(page.locator("#staging .batches input")).to_have_value("12")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Tab")
    page.wait_for_function(
        "() => { const {try_batches: n, try_cost: cost} = revacnn.parts.staging; "
        "return n == 13 && cost != '' }"
    )
    expect(page.locator("#staging .batches input")).to_have_value("13")
    page.keyboard.press("Escape")


def test_add_filters_with_the_buttons_of_the_header(digits: str, open_page: Any) -> None:
    page = ready(open_page(digits))
    before = width(page, "conv1")
    more = page.locator('.column[data-layer="conv1"] button.more')
    more.click()
    more.click()
    page.wait_for_selector("#staging .row[data-plan=planned]")
    expect(page.locator("#staging")).to_contain_text("2 filters to conv1")
    page.click("#staging button.apply")
    page.wait_for_function("(n) => revacnn.nodes('conv1').length == n", arg=before + 2)
    states = [node["state"] for node in nodes(page, "conv1")]
    assert states.count(2) >= 2  # new ones pulse


def test_refusals_are_shown_before_and_after_apply(digits: str, open_page: Any) -> None:
    page = ready(open_page(digits))
    for index in range(width(page, "conv1")):
        click_node(page, "conv1", index)
        page.keyboard.press("Delete")
        page.wait_for_function("(n) => revacnn.nodes('conv1')[n].state == 3", arg=index)
    page.wait_for_selector("#staging .row[data-plan=refused]")
    expect(page.locator("#staging .detail")).to_contain_text("left without filters")
    assert page.is_disabled("#staging button.apply")
    page.click("#staging button.discard")
    page.wait_for_selector("#staging", state="hidden")
    less = page.locator('.column[data-layer="conv3"] button.less')
    assert less.get_attribute("aria-disabled") == "true"
    assert "reshaped" in (less.get_attribute("title") or "")


def test_an_edit_is_undone_and_redone(digits: str, open_page: Any) -> None:
    page = ready(open_page(digits))
    undo, redo = page.locator("#undo"), page.locator("#redo")
    expect(redo).to_have_attribute("aria-disabled", "true")
    expect(redo).to_have_attribute("title", "No edit was undone since the last one.")
    before = width(page, "conv2")
    page.click('.column[data-layer="conv2"] button.more')
    page.wait_for_selector("#staging .row[data-plan=planned]")
    page.click("#staging button.apply")
    page.wait_for_function("(n) => revacnn.nodes('conv2').length == n", arg=before + 1)
    expect(undo).not_to_have_attribute("aria-disabled", "true")
    undo.click()
    page.wait_for_function("(n) => revacnn.nodes('conv2').length == n", arg=before)
    expect(redo).not_to_have_attribute("aria-disabled", "true")
    page.keyboard.press("Control+Shift+Z")
    page.wait_for_function("(n) => revacnn.nodes('conv2').length == n", arg=before + 1)
    expect(redo).to_have_attribute("aria-disabled", "true")


def test_two_tabs_see_the_same_network(digits: str, open_page: Any) -> None:
    one, other = ready(open_page(digits)), ready(open_page(digits))
    one.click('.column[data-layer="conv2"] button.more')
    one.wait_for_selector("#staging .row[data-plan=planned]")
    assert other.is_hidden("#staging")
    one.click("#staging button.apply")
    one.wait_for_selector("#reply[data-state=applied]")
    other.wait_for_function(
        "(n) => revacnn.nodes('conv2').length == n", arg=len(nodes(one, "conv2"))
    )


def test_dark_and_light(digits: str, open_page: Any) -> None:
    page = with_charts(open_page(digits, color_scheme="light"))
    theme = "document.documentElement.dataset.theme"
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(theme) == "light"
    light = page.evaluate(background)
    page.click("#theme")
    assert page.evaluate(theme) == "dark"
    assert page.evaluate(background) != light
    tick = "Bokeh.documents[0].get_model_by_name('loss').xaxis?.[0]?.major_label_text_color ?? ''"
    page.wait_for_function(
        "Bokeh.documents[0].get_model_by_name('loss').title.text_color == '#c7d3e3'"
    )
    assert isinstance(page.evaluate(tick), str)
    page.reload()
    ready(page)
    assert page.evaluate(theme) == "dark"  # remembered


def test_zoom_pan_and_back(digits: str, open_page: Any) -> None:
    page = ready(open_page(digits))
    node = nodes(page, "conv2")[8]
    between = abs(nodes(page, "conv1")[0]["x"] - node["x"])  # the columns
    page.mouse.move(node["x"], node["y"])
    page.mouse.wheel(0, -600)
    page.wait_for_selector("#zoom-out:not([hidden])")
    wait_for(
        lambda: abs(nodes(page, "conv1")[0]["x"] - node["x"]) > 1.5 * between, what="zoomed in"
    )
    assert abs(nodes(page, "conv2")[8]["x"] - node["x"]) < 2  # what is under the pointer stays
    page.mouse.down()
    page.mouse.move(node["x"] + 80, node["y"] + 30, steps=4)
    page.mouse.up()
    wait_for(lambda: abs(nodes(page, "conv2")[8]["x"] - node["x"] - 80) < 2, what="panned")
    page.click("#zoom-out")
    wait_for(lambda: abs(nodes(page, "conv2")[8]["x"] - node["x"]) < 1, what="back")


def test_an_earlier_moment_and_back_to_live(digits: str, open_page: Any) -> None:
    page = ready(open_page(digits))
    page.wait_for_function("revacnn.parts.timeline.recorded > 30")
    box = page.locator("#time").bounding_box()
    page.mouse.click(box["x"] + 0.3 * box["width"], box["y"] + box["height"] / 2)
    page.wait_for_function("revacnn.parts.timeline.live === false")
    expect(page.locator("#moment")).to_have_text(
        re.compile(r"^Batch [\d\s]+ of [\d\s]+\. Edits apply")
    )
    first = page.evaluate("revacnn.value('gradient', 0)")
    time.sleep(0.5)
    assert page.evaluate("revacnn.value('gradient', 0)") == first
    expect(page.locator("#play")).to_have_attribute("title", re.compile("from the shown batch"))
    page.click("#play")
    page.wait_for_function("(v) => revacnn.value('gradient', 0) != v", arg=first)
    page.click("#live")
    page.wait_for_function("revacnn.parts.timeline.live === true")


def test_long_facts_had_truncated_the_name_of_a_layer(digits: str, open_page: Any) -> None:
    page = ready(open_page(digits, viewport={"width": 1680, "height": 960}))
    content = "{layer: 'layer2.1.conv2', facts: '128 filters · 128→128 · 11×11 · stride 4'}"
    found = page.evaluate(f"""() => {{
      revacnn.deliver("selection_panel", {{...revacnn.parts.selection_panel, ...{content}}})
      const cut = (id) => {{
        const {{scrollWidth, clientWidth}} = document.getElementById(id)
        return scrollWidth > clientWidth
      }}
      return [cut("layer"), cut("layer-facts")]
    }}""")
    assert found == [False, False]


def test_the_tooltip_of_a_field_stayed_that_of_the_first_batch(digits: str, open_page: Any) -> None:
    """It named a batch that was long over, and no NaN of a later one."""
    page = ready(open_page(digits))
    first = page.evaluate("revacnn.parts.header.fields.find(({label}) => label == 'Batch').title")
    assert re.fullmatch(r"batch \d+ of the run", first)
    page.wait_for_function(f"""() => {{
      const field = [...document.querySelectorAll(".field")].find((one) => one.textContent.startsWith("Batch"))
      return field.title.startsWith("batch ") && field.title != "{first}"
    }}""")  # noqa: E501


def test_escape_in_a_field_left_the_learning_rates_open(digits: str, open_page: Any) -> None:
    page = ready(open_page(digits))
    page.evaluate("""() => {
      const values = [{name: "lr", label: "learning rate", text: "0.1", requested: ""}]
      const groups = [{optimizer: 0, group: 0, title: "SGD", values, note: ""}]
      revacnn.deliver("controls", {...revacnn.parts.controls, groups})
      document.getElementById("rates").click()
      document.querySelector("#rates-panel input").focus()
    }""")
    page.keyboard.press("Escape")
    expect(page.locator("#rates-panel")).to_be_hidden()
    expect(page.locator("#rates")).to_be_focused()


def test_the_learning_rate_panel_without_known_optimizers(digits: str, open_page: Any) -> None:
    page = ready(open_page(digits))  # a training that never reports any
    page.click("#rates")
    expect(page.locator("#rates-panel")).to_contain_text("not reported its optimizers")


def test_search_finds_a_layer(digits: str, open_page: Any) -> None:
    page = ready(open_page(digits))
    page.keyboard.press("/")
    page.keyboard.type("nv3")
    page.wait_for_function("revacnn.parts.selection_panel.layer == 'conv3'")


def test_a_strip_opens_and_closes(tmp_path: Path, open_page: Any) -> None:
    with training(tmp_path, "--net", "resnet18"), server(tmp_path) as address:
        page = ready(open_page(address))
        strip = nodes(page, "layer4.1.conv1")
        assert len(strip) < 512
        is_open = "revacnn.nodes('layer4.1.conv1').length == 512"
        while not page.evaluate(is_open):  # the strip moves when the trace has arrived
            node = nodes(page, "layer4.1.conv1")[5]
            page.mouse.dblclick(node["x"], node["y"])
            page.wait_for_timeout(3000)
        page.keyboard.press("Enter")
        page.wait_for_function("(n) => revacnn.nodes('layer4.1.conv1').length == n", arg=len(strip))


def test_a_hidden_tab_is_sent_nothing(digits: str, open_page: Any) -> None:
    page = ready(open_page(digits))
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {get: () => true, configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    before = -1
    while before != (before := page.evaluate("revacnn.received")):  # frames that were on their way
        time.sleep(1.0)
    page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_function("(n) => revacnn.received > n + 2", arg=before)


def column_of_loss(name: str) -> str:
    """Script for all values of a column of whatever the first chart draws."""
    data = "one.data_source.data"
    return (
        "Bokeh.documents[0].get_model_by_name('loss').renderers"
        f".flatMap((one) => [...({data}.get?.('{name}') ?? {data}.{name} ?? [])])"
    )


def test_a_chart_shows_the_chosen_metric_and_the_viewed_moment(digits: str, open_page: Any) -> None:
    page = with_charts(open_page(digits))
    page.wait_for_function("revacnn.parts.timeline.recorded > 20")
    page.select_option("select[data-chart='0']", "acc")
    page.wait_for_function(f"{column_of_loss('label')}.includes('val_acc')")
    page.select_option("select[data-chart='2']", "dead")
    page.wait_for_function("revacnn.parts.charts.charts[2].current == 'dead'")
    box = page.locator("#time").bounding_box()
    page.mouse.click(box["x"] + 0.3 * box["width"], box["y"] + box["height"] / 2)
    titles = column_of_loss("title")
    page.wait_for_function(f"{titles}.some((one) => one.startsWith('Shown: batch'))")
    page.click("#live")
    page.wait_for_function(f"!{titles}.some((one) => one.startsWith('Shown: '))")


def test_a_stage_opens_as_a_whole_and_closes(tmp_path: Path, open_page: Any) -> None:
    with training(tmp_path, "--net", "resnet18"), server(tmp_path) as address:
        page = ready(open_page(address))
        before = len(nodes(page, "layer4.1.conv2"))
        page.get_by_text("layer4", exact=True).dblclick()
        page.wait_for_function("revacnn.nodes('layer4.1.conv2').length == 512")
        assert len(nodes(page, "layer4.0.conv1")) == 512
        page.get_by_text("layer4", exact=True).dblclick()
        page.wait_for_function("(n) => revacnn.nodes('layer4.1.conv2').length == n", arg=before)


TITLES_THAT_CANNOT_BE_HIT = """() => {
  const titles = [...document.querySelectorAll(".stage > b")].filter((title) => {
    const {left, top, width, height} = title.getBoundingClientRect()
    return !title.hidden && document.elementFromPoint(left + width / 2, top + height / 2) != title
  })
  return titles.map((title) => title.textContent)
}"""


def test_the_title_of_a_narrow_stage_is_not_covered_by_its_neighbors(
    tmp_path: Path, open_page: Any
) -> None:
    with training(tmp_path, "--net", "resnet18"), server(tmp_path) as address:
        page = ready(open_page(address))
        expect(page.locator(".stage").first).to_contain_text("layer1")
        assert page.evaluate(TITLES_THAT_CANNOT_BE_HIT) == []


PATHS_OF_SELECTED = """([name, index]) => {
  const {mark, startY, transform} = revacnn.network.paths.scene, node = revacnn.nodes(name)[index]
  if (startY == null || mark.filter((value) => value == 1).length < 2) return false
  const {top} = document.getElementById("plot").getBoundingClientRect()
  return Math.abs(top + (startY - transform.top) * transform.scaleY - node.y) < 1.5
}"""


def test_paths_of_the_selected_filter_start_at_its_node(tmp_path: Path, open_page: Any) -> None:
    """A path stands for several filters; that of the selected one starts at its own node."""
    with training(tmp_path, "--net", "inception"), server(tmp_path) as address:
        page = ready(open_page(address))
        layer = page.evaluate("revacnn.parts.network_layout.layers[0].name")
        for index in (0, 1, 2):
            click_node(page, layer, index)
            page.wait_for_function(PATHS_OF_SELECTED, arg=[layer, index])


LOOK_OF_TOOLTIP = """() => {
  const tips = [...document.querySelectorAll(".bk-Tooltip")] // an edit's mark has one, too
  const tip = tips.find((one) => one.shadowRoot.textContent.includes("batch"))
  if (tip == null) return null
  const {borderWidth, backgroundColor} = getComputedStyle(tip)
  return [borderWidth, backgroundColor]
}"""


def test_tooltips_of_charts_are_styled_like_the_page(digits: str, open_page: Any) -> None:
    page = with_charts(open_page(digits))
    page.wait_for_function(
        "Bokeh.documents[0].get_model_by_name('learning_rate').renderers.some("
        "  (one) => one.data_source.get_length() > 0 && one.data_source.data.rate != null)"
    )
    box = page.locator("footer .chart >> nth=1").bounding_box()
    look, deadline = None, time.monotonic() + 60
    for y in itertools.cycle(range(30, int(box["height"]) - 25)):  # until it is on the curve
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + y)
        look = page.evaluate(LOOK_OF_TOOLTIP)
        if look is not None or time.monotonic() > deadline:
            break
    assert look == ["0px", "rgba(0, 0, 0, 0)"]


# Without a worker, and in frames that began before the tween.
EARLY_FRAMES = """async () => {
  IMPORT
  const {WorkerCanvas} = await load("shared/worker_canvas.js")
  const {paintNodes} = await load("network/node_painter.js")
  const {colors} = await load("shared/theme.js")
  const canvas = document.createElement("canvas"), frame = window.requestAnimationFrame
  canvas.transferControlToOffscreen = null
  const nodes = new WorkerCanvas(canvas, null, paintNodes), x = Float32Array.of(10, 40)
  const none = Float32Array.of(NaN, NaN)
  window.requestAnimationFrame = (then) => frame((now) => then(now - 100))
  nodes.update({
    width: 60, height: 60, ratio: 1, transform: {left: 0, top: 0, scaleX: 1, scaleY: 1},
    x, y: x, size: x, bar: new Float32Array(2), phase: x, amplitude: x, tone: x,
    state: new Uint8Array(2),
    states: revacnn.states, colors: colors(), motion: 0, selected: 0, hovered: -1, also: [],
    coupled: [], tween: {x: none, y: none, size: none, removed: [[5, 5, 9]]},
  })
  while (true) {
    const {data} = canvas.getContext("2d").getImageData(40, 40, 1, 1)
    if (nodes.drawn > 0 && data[3] == 255) break
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  window.requestAnimationFrame = frame
  return true
}""".replace("IMPORT", IMPORT)


def test_a_tween_starts_in_a_frame_that_began_before_it(digits: str, open_page: Any) -> None:
    page = ready(open_page(digits))
    # An exception in the first frame would end the drawing.
    page.wait_for_function(f"() => window.early ??= ({EARLY_FRAMES})()")


def test_a_plan_that_arrives_while_apply_is_pressed_keeps_the_click(
    digits: str, open_page: Any
) -> None:
    page = ready(open_page(digits))
    before = width(page, "conv2")
    page.click('.column[data-layer="conv2"] button.more')
    page.wait_for_selector("#staging .row[data-plan=planned]")
    page.hover("#staging button.apply")
    page.mouse.down()
    page.evaluate("revacnn.deliver('staging', {...revacnn.parts.staging})")
    page.mouse.up()
    page.wait_for_function("(n) => revacnn.nodes('conv2').length == n", arg=before + 1)


def test_headers_that_arrive_while_a_button_is_pressed_keep_click_and_focus(
    digits: str, open_page: Any
) -> None:
    page = ready(open_page(digits))
    page.hover('.column[data-layer="conv2"] button.more')
    page.mouse.down()
    page.evaluate("revacnn.deliver('network_layout', {...revacnn.parts.network_layout})")
    page.mouse.up()
    page.wait_for_selector("#staging .row[data-plan=planned]")
    page.evaluate("revacnn.deliver('network_layout', {...revacnn.parts.network_layout})")
    page.wait_for_selector('.column[data-layer="conv2"] button.more:focus')
    page.keyboard.press("Enter")
    expect(page.locator("#staging .title")).to_contain_text("2 filters to")
    page.keyboard.press("Escape")
    page.wait_for_selector("#staging", state="hidden")
