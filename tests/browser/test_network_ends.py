"""The way from the image to the classes, in a real Chromium, with a simulated training."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.test_page import ready

pytestmark = pytest.mark.browser

RED_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEUlEQVR42mP4z8CAFTEMLQkAKP8/wc53yE8AAAAASUVORK5CYII="
)  # 8×8 pixels


def test_the_network_shows_the_input_the_classes_and_the_modules(
    address: str, open_page: Any
) -> None:
    page = ready(open_page(address, viewport={"width": 1680, "height": 960}))
    expect(page.locator(".output")).to_have_count(10)
    expect(page.locator(".output[data-predicted=true] .name")).to_have_text("cat")
    expect(page.locator(".output[data-true=true] .name")).to_have_text("dog")
    expect(page.locator(".channel")).to_have_count(3)
    expect(page.locator("#network-input-source")).to_have_text("batch")
    size = page.evaluate("() => document.getElementById('network-input-picture').width")
    assert size == 64

    page.click("#network-input-steps [data-image='1']")
    expect(page.locator("#network-input-source")).to_have_text("validation 0")
    page.click("#network-input-steps [data-image=batch]")
    expect(page.locator("#network-input-source")).to_have_text("batch")

    marks = page.locator(".mark")
    expect(marks).to_have_count(8)
    marks.first.hover(position={"x": 4, "y": 8})
    expect(page.locator("#tooltip")).to_contain_text("BatchNorm2d")
    page.click("#toggle-modules")
    expect(marks).to_have_count(0)


def test_a_picture_is_shown_and_painted_with_the_pointer_and_the_keyboard(
    address: str, open_page: Any
) -> None:
    page = ready(open_page(address, viewport={"width": 1680, "height": 960}))
    source, image = page.locator("#network-input-source"), page.locator("#editor-image")
    expect(source).to_have_text("batch")
    first_layer = page.evaluate("() => revacnn.parts.selection_panel.layer")
    page.click("#edit-input")
    file = {"name": "red.png", "mimeType": "image/png", "buffer": RED_PNG}
    page.set_input_files("#editor-file", file)
    expect(source).to_have_text("your image")

    image.click(position={"x": 20, "y": 20})
    page.wait_for_function("() => revacnn.parts.ends.input.paint.is_painted")
    origin = page.evaluate("() => revacnn.parts.ends.input.paint.origin")
    page.click("#editor-restore")
    page.wait_for_function("() => !revacnn.parts.ends.input.paint.is_painted")
    image.press("ArrowDown")
    image.press(" ")
    expect(page.locator("#announcement")).to_have_text("row 2, column 1, erased")
    page.wait_for_function("() => revacnn.parts.ends.input.paint.is_painted")
    assert page.evaluate("() => revacnn.parts.ends.input.paint.origin") == origin

    page.set_input_files("#editor-file", {**file, "name": "notes.txt", "buffer": b"no picture"})
    expect(page.locator("#editor-status")).to_contain_text("cannot read notes.txt")
    image.press("ArrowDown")
    image.press(" ")
    expect(page.locator("#editor-status")).to_have_text("")  # it stayed while one went on painting
    page.keyboard.press("Escape")
    expect(page.locator("#image-editor")).to_be_hidden()
    page.click("#network-input-steps [data-image=batch]")
    expect(source).to_have_text("batch")

    page.locator("#edit-input").press("Enter")  # by keyboard alone: it was not reached, nor closed
    expect(image).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press(" ")  # which paused the run as well
    expect(page.locator("#announcement")).to_have_text("row 2, column 1, erased")
    assert page.evaluate("() => revacnn.parts.selection_panel.layer") == first_layer
    expect(page.locator("#run-state")).to_contain_text("training")
    page.keyboard.press("Escape")
    expect(page.locator("#image-editor")).to_be_hidden()
    expect(page.locator("#edit-input")).to_be_focused()


# A pass with a generated image, whose data the page would replace with the next pass.
WITH_GENERATED = """() => {
  const atlas = Object.assign(new Uint8Array(96).fill(200), {shape: [2, 4, 4, 3]})
  revacnn.deliver("ends", {...revacnn.parts.ends, generated: [200, 300, 240, 340]}, atlas)
  const picture = document.getElementById("network-generated-picture")
  const plot = document.getElementById("plot").getBoundingClientRect()
  const {left, top, width} = picture.getBoundingClientRect()
  const shown = [picture.checkVisibility(), picture.width, left - plot.left, top - plot.top, width]
  revacnn.deliver("ends", {...revacnn.parts.ends, generated: null}, atlas)
  return [...shown, picture.checkVisibility()]
}"""
# The same while the editor is open: the shape of its canvas, and the gray right of its middle.
EDITED = """() => {
  const atlas = Object.assign(new Uint8Array(96).fill(200, 0, 48), {shape: [2, 4, 4, 3]})
  revacnn.deliver("ends", {...revacnn.parts.ends, generated: [200, 300, 240, 340]}, atlas)
  const {width, height} = document.getElementById("editor-image")
  const context = document.getElementById("editor-image").getContext("2d")
  return [width / height, context.getImageData(0.9 * width, height / 2, 1, 1).data[0]]
}"""
NAMES = """() => [...document.querySelectorAll(".output")].map((row) => {
  const name = row.querySelector(".name"), {top, bottom, right} = row.getBoundingClientRect()
  const isCut = name.scrollWidth > name.clientWidth || name.textContent.includes("…")
  const text = {cut: isCut, text: name.textContent}
  return {...text, top, bottom, isOutside: right > innerWidth}
})"""


def test_a_generated_image_stands_where_its_readers_are(address: str, open_page: Any) -> None:
    page = ready(open_page(address))
    expect(page.locator(".output")).to_have_count(10)
    is_shown, pixels, left, top, width, is_shown_later = page.evaluate(WITH_GENERATED)
    assert (is_shown, pixels, is_shown_later) == (True, 4, False)
    assert (left, top, width) == pytest.approx((200, 300, 40), abs=0.2)


def test_the_image_to_paint_over_had_the_generated_one_beside_it(
    address: str, open_page: Any
) -> None:
    """Each tile was painted at another place than where it was clicked."""
    page = ready(open_page(address))
    page.evaluate("revacnn.sendCommand('show_batch_image')")  # all tests share the run's input
    expect(page.locator("#network-input-source")).to_have_text("batch")
    page.click("#edit-input")
    expect(page.locator("#image-editor")).to_be_visible()
    assert page.evaluate(EDITED) == [1, 200]


@pytest.mark.parametrize("size", [(1280, 720), (1680, 960)])
def test_the_names_of_classes_were_cut_or_lay_on_each_other(
    address: str, open_page: Any, size: tuple[int, int]
) -> None:
    page = ready(open_page(address, viewport={"width": size[0], "height": size[1]}))
    expect(page.locator(".output")).to_have_count(10)
    page.wait_for_function(  # the layout changes with the first pass of an input
        f"""() => ({NAMES})().every(({{cut, isOutside, bottom}}, i, rows) =>
            !cut && !isOutside && bottom <= (rows[i + 1]?.top ?? Infinity) + 0.5)"""
    )


# Classes with long names: what is seen of them, whether that fits, and what is said on hover.
LONG_NAMES = """(names) => {
  const {ends} = revacnn.parts
  revacnn.deliver("ends", {...ends, rows: ends.rows.map((row, i) => ({...row, name: names[i % 2]}))})
  return [...document.querySelectorAll(".output")].map((row) => {
    const name = row.querySelector(".name")
    return [name.textContent, name.scrollWidth <= name.clientWidth, row.title.split(" ").slice(0, -1)]
  })
}"""  # noqa: E501


def test_long_names_of_classes_were_cut_where_they_differ(address: str, open_page: Any) -> None:
    # Wider than the page. The room depends on the layers that other tests have left, and on whether
    # there is a prediction.
    begin = "conifer forest of the northern mountains, " * 8
    names = [f"{begin}{state}" for state in ("damaged", "healthy")]
    page = ready(open_page(address, viewport={"width": 1280, "height": 720}))
    expect(page.locator(".output")).to_have_count(10)
    shown = page.evaluate(LONG_NAMES, names)
    assert all(fits for _, fits, _ in shown)
    assert len({text for text, _, _ in shown}) > 1
    for (text, _, title), name in zip(shown, names * 5, strict=True):
        begin, end = text.split("…")
        assert name.startswith(begin)
        assert name.endswith(end)
        assert " ".join(title).startswith(name)


# More paths arrive together with another selection, as with the first pass of an input.
NEW_LAYOUT = """() => {
  const {paths, strokes, selection} = revacnn.parts, {scene} = revacnn.network.paths
  const longer = (array) => Object.assign(array.constructor.of(...array, array.at(-1)), {shape: [array.length + 1]})
  revacnn.deliver("paths", Object.fromEntries(Object.entries(paths).map(([name, array]) => [name, longer(array)])))
  revacnn.deliver("strokes", {...strokes, weight: longer(strokes.weight), staged: longer(strokes.staged)})
  revacnn.deliver("selection", {...selection, node: selection.node === 0 ? 1 : 0})
  return [scene.x.length, scene.weight.length]
}"""  # noqa: E501


def test_a_selection_beside_a_new_layout_weighed_paths_that_were_not_drawn(
    address: str, open_page: Any
) -> None:
    """The painting failed where a frame began in between, as in Firefox."""
    page = ready(open_page(address))
    page.wait_for_function("() => revacnn.parts.strokes?.weight.length > 0")
    drawn, weighed = page.evaluate(NEW_LAYOUT)
    assert drawn == weighed
