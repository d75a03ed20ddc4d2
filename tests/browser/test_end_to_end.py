"""A real training, a real Bokeh server and a real browser: what the project exists for."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from revacnn_lightning import attach
from revacnn_lightning.client.run import Run
from revacnn_lightning.page_server.access_token import VARIABLE
from revacnn_lightning.protocol.messages import Snapshot
from revacnn_lightning.protocol.requests import RemoveFilters
from tests.browser.conftest import wait_without_eval
from tests.viewer.processes import TOKEN, free_port

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 240_000  # milliseconds; the machine may be busy

pytestmark = pytest.mark.browser


def environment() -> dict[str, str]:
    """That of this process, with the package importable even where it is not installed."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def until(condition: Callable[[], object], what: str, seconds: float = 240.0) -> object:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {seconds:g} s")


@pytest.fixture(scope="module")
def module_runtime_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory of connection files for all processes of this module."""
    return tmp_path_factory.mktemp("runtime")


@pytest.fixture(scope="module")
def processes(module_runtime_dir: Path, tmp_path_factory) -> Iterator[dict]:
    """A training of digits, and ``bokeh serve viewer`` beside it."""
    env = {
        **environment(), "REVACNN_RUNTIME_DIR": str(module_runtime_dir), VARIABLE: TOKEN.text
    }  # fmt: skip
    log = tmp_path_factory.mktemp("log")
    port = free_port()
    page = f"http://localhost:{port}/viewer"
    example = [sys.executable, str(ROOT / "examples" / "01_digits.py"), "--pace", "30"]
    serve = [sys.executable, "-m", "bokeh", "serve", str(ROOT / "viewer"), "--port", str(port)]
    with (log / "training").open("w") as out, (log / "server").open("w") as served:
        training = subprocess.Popen(example, stdout=out, stderr=out, env=env)
        server = subprocess.Popen(serve, stdout=served, stderr=served, env=env)
        yield {"training": training, "url": f"{page}?{TOKEN.query}", "log": log}
        for process in (training, server):
            process.send_signal(signal.SIGINT)
        for process in (training, server):
            process.wait(timeout=30)


@pytest.fixture(scope="module")
def page(processes: dict, chromium: Browser) -> Iterator[Page]:
    server_log = processes["log"] / "server"
    until(lambda: "Bokeh app running" in server_log.read_text(), "the server's start")
    page = chromium.new_page(viewport={"width": 1680, "height": 960})
    page.set_default_timeout(PATIENCE)
    wait_without_eval(page)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(processes["url"])
    page.wait_for_function("window.revacnn && revacnn.ready")
    yield page
    page.close()
    assert errors == []


@pytest.fixture
def run(module_runtime_dir: Path, monkeypatch: pytest.MonkeyPatch, page: Page) -> Iterator[Run]:
    """The training itself, asked directly: what it says counts, not what the page shows."""
    monkeypatch.setenv("REVACNN_RUNTIME_DIR", str(module_runtime_dir))
    with attach(timeout=60) as attached:
        yield attached


def width(run: Run, layer: str) -> int:
    run.poll()
    assert run.structure is not None
    return {each.name: each.out_channels for each in run.structure.layers}[layer]


def losses(run: Run, count: int) -> list[float]:
    """The losses of the next ``count`` batches."""
    seen: list[float] = []

    def enough() -> bool:
        seen.extend(m.loss for m in run.poll() if isinstance(m, Snapshot) and m.loss is not None)
        return len(seen) >= count

    until(enough, f"{count} more batches")
    return seen[:count]


def nodes(page: Page, layer: str) -> list[dict]:
    return page.evaluate(f"revacnn.nodes({layer!r})")


def shown_width(page: Page, layer: str) -> int:
    layers = page.evaluate("revacnn.parts.network_layout.layers")
    return next(each["filters"] for each in layers if each["name"] == layer)


def click_node(page: Page, layer: str, index: int) -> None:
    [node] = [node for node in nodes(page, layer) if node["index"] == index]
    page.mouse.click(node["x"], node["y"])
    expect(page.locator("#layer")).to_have_text(layer)
    expect(page.locator("#filter")).to_have_text(f"filter {index}")


def apply_staged(page: Page) -> str:
    """Press Apply; the text of the reply."""
    apply = page.locator("#staging button.apply")
    expect(apply).to_be_enabled(timeout=PATIENCE)
    page.evaluate("revacnn.sendCommand('dismiss_reply')")  # that of an earlier edit
    expect(page.locator("#reply")).to_be_hidden(timeout=PATIENCE)
    apply.click()
    expect(page.locator("#reply[data-state=applied], #reply[data-state=refused]")).to_be_visible(
        timeout=PATIENCE
    )
    return page.locator("#reply").inner_text()


def clear(page: Page) -> None:
    """Nothing staged, no reply shown."""
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")


def test_the_page_fills_with_the_network_and_its_numbers(page: Page, run: Run):
    for layer in run.structure.layers:
        assert len(nodes(page, layer.name)) == layer.out_channels
    fields = page.locator("#fields")
    # The structure is shown before the first batch's numbers are.
    for name in ("Epoch", "Batch", "Loss", "Learning rate", "Throughput"):
        expect(fields).to_contain_text(name, timeout=PATIENCE)
    expect(page.locator("#run-state")).to_have_text(re.compile("^training"), timeout=PATIENCE)
    expect(fields).to_contain_text(re.compile(r"Loss\s*\d"), timeout=PATIENCE)


def test_the_nodes_move_between_two_frames(page: Page):
    before = {n["index"]: (n["x"], n["y"]) for n in nodes(page, "features.conv2")}
    frames = page.evaluate("revacnn.frames")
    page.wait_for_function(f"revacnn.frames > {frames + 5}")
    pictures = [page.locator("#network").screenshot() for _ in range(2)]
    assert pictures[0] != pictures[1]
    assert set(before) == {n["index"] for n in nodes(page, "features.conv2")}


def test_a_click_and_apply_removes_a_filter_and_the_training_goes_on_learning(page: Page, run: Run):
    clear(page)
    old = width(run, "features.conv2")
    first = losses(run, 30)
    click_node(page, "features.conv2", 5)
    page.keyboard.press("Delete")
    expect(page.locator("#staging .row[data-plan=planned] .title")).to_contain_text(
        "conv2 · filter 5", timeout=PATIENCE
    )
    reply = apply_staged(page)
    assert "conv2" in reply
    until(lambda: width(run, "features.conv2") == old - 1, "the removal")
    page.wait_for_function(f"revacnn.nodes('features.conv2').length == {old - 1}")
    assert shown_width(page, "features.conv2") == old - 1
    losses(run, 100)
    last = losses(run, 30)
    assert sum(last) < sum(first)


def test_the_plus_button_and_apply_add_a_filter(page: Page, run: Run):
    clear(page)
    old = width(run, "features.conv1")
    page.locator(".column[data-layer='features.conv1'] button.more").click()
    expect(page.locator("#staging .row[data-plan=planned]")).to_be_visible(timeout=PATIENCE)
    apply_staged(page)
    until(lambda: width(run, "features.conv1") == old + 1, "the growth")
    page.wait_for_function(f"revacnn.nodes('features.conv1').length == {old + 1}")
    assert all(loss == loss for loss in losses(run, 20))


def layer_names(run: Run) -> list[str]:
    run.poll()
    assert run.structure is not None
    return [layer.name for layer in run.structure.layers]


def test_the_menus_insert_and_remove_layers(page: Page, run: Run):
    clear(page)
    before = layer_names(run)
    page.hover("#plot")
    page.locator("button.insert").nth(1).click()
    expect(page.locator("#layer-menu b")).to_have_text("After features.conv2")
    page.locator("#layer-menu").get_by_text("Insert a residual block").click()
    expect(page.locator("#layer-menu")).to_be_hidden()
    expect(page.locator("#staging .title")).to_have_text("a residual block after features.conv2")
    assert "the output is unchanged" in apply_staged(page)
    inserted = "features.conv2.inserted1.conv"
    until(lambda: layer_names(run) == [*before[:2], inserted, *before[2:]], "the insertion")
    expect(page.locator("#layer")).to_have_text(inserted, timeout=PATIENCE)  # its panel opens
    page.locator(f".column[data-layer='{inserted}'] button.menu").click()
    page.locator("#layer-menu").get_by_text("Remove the layer").click()
    apply_staged(page)
    until(lambda: layer_names(run) == before, "the removal")
    clear(page)
    page.keyboard.press("Shift+I")  # the same by keyboard, and its undo
    expect(page.locator("#staging .title")).to_contain_text("a convolution after")
    assert "the output is unchanged" in apply_staged(page)
    until(lambda: len(layer_names(run)) == len(before) + 1, "the insertion by keyboard")
    clear(page)
    page.keyboard.press("u")
    until(lambda: layer_names(run) == before, "the undo")
    assert all(loss == loss for loss in losses(run, 5))


def test_the_menu_adds_several_filters_and_minus_discards_one(page: Page, run: Run):
    clear(page)
    page.keyboard.press("o")
    page.get_by_label("Number of filters to add").fill("6")
    page.keyboard.press("Enter")
    expect(page.locator("#staging .title")).to_contain_text("6 filters to")
    page.locator(".column[data-current=true] button.less").click()
    expect(page.locator("#staging .title")).to_contain_text("5 filters to")
    page.keyboard.press("Escape")
    expect(page.locator("#staging")).to_be_hidden()


def test_a_bad_request_shows_its_reason_and_changes_nothing(page: Page, run: Run):
    clear(page)
    alone = width(run, "features.conv3") - 1
    run.apply(RemoveFilters("features.conv3", list(range(1, alone + 1))))
    page.wait_for_function("revacnn.nodes('features.conv3').length == 1")
    click_node(page, "features.conv3", 0)
    remove = page.locator("#remove")
    expect(remove).to_have_attribute("title", re.compile("last filter"), timeout=PATIENCE)
    expect(remove).to_have_attribute("aria-disabled", "true")
    expect(page.locator("#add")).to_have_attribute("aria-disabled", "false")  # it grows again
    page.keyboard.press("Delete")
    assert width(run, "features.conv3") == 1
    clear(page)


def test_the_page_says_so_when_the_training_ends(page: Page, processes: dict):
    processes["training"].send_signal(signal.SIGINT)
    expect(page.locator("#dot[data-kind=training]")).to_have_count(0, timeout=PATIENCE)
    expect(page.locator("#run-state")).not_to_contain_text("training", timeout=PATIENCE)
