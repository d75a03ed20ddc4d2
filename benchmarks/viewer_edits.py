"""Of `benchmarks.viewer`: how soon an edit shows, and what memory does over many of them."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.page_metrics import open_page, percentile, resident_bytes, wait_until_warm
from benchmarks.report import Report
from revacnn_lightning import attach
from revacnn_lightning.protocol.client import Run
from revacnn_lightning.protocol.requests import AddFilters, RemoveFilters
from tests.browser.chromium import chromium
from tests.viewer.processes import ROOT, serve, training

EDIT_MS = 250.0  # besides one batch
PACE = 20  # batches a second, of the demo
GROWTH = 10.0  # percent
EDITS_PER_MINUTE = 100 / 30
SETTLE = 60.0  # s, after which memory is counted from; less in a short soak
LAYER = "features.conv2"
LEGS = ("staged", "applied", "shown")

# One edit by the page's own buttons; the time from the first click to the painted result.
EDIT = """([layer, button]) => new Promise((resolve) => {
  const count = () => revacnn.nodes(layer).length, before = count(), began = performance.now()
  const column = document.querySelector(`.column[data-layer="${layer}"]`)
  const wanted = before + (button == "more" ? 1 : -1), marks = {}
  const mark = (name) => { marks[name] ??= performance.now() - began }
  column.querySelector(`button.${button}`).click()
  const reply = () => document.getElementById("reply").textContent, earlier = reply()
  let asked = false
  const look = () => {
    const apply = document.querySelector("#staging button.apply")
    if (apply != null) mark("staged")
    if (!asked && apply != null && !apply.disabled) {
      asked = true
      apply.click()
    }
    const {state} = document.getElementById("reply").dataset
    if (asked && state == "applied" && reply() != earlier) mark("applied") // by now, it is said
    if (count() == wanted) requestAnimationFrame(() => mark("shown"))
    const over = marks.shown != null && marks.applied != null || performance.now() - began > 10000
    if (over) resolve(marks)
    else requestAnimationFrame(look)
  }
  look()
})"""


def tell_edits(report: Report, count: int) -> None:
    """Edits of a real training, by the page's buttons, from click to picture."""
    edits = _edits(count)
    legs = {leg: [_milliseconds(edit, leg) for edit in edits] for leg in LEGS}
    limit = EDIT_MS + 1000 / PACE
    p95 = percentile(legs["shown"], 95)
    words = ", ".join(
        f"{leg} {percentile(of, 50):.0f}, {percentile(of, 95):.0f}" for leg, of in legs.items()
    )
    report.note(
        f"from the first click, on the digits demo (median, p95, ms): {words}; "
        f"{count} edits at {PACE} batches a second"
    )
    report.check("digits: click to staged, applied, shown, p95, ms", p95, f"<= {limit:g}",
                 p95 <= limit)  # fmt: skip


def _milliseconds(edit: dict[str, Any], leg: str) -> float:
    """Infinite if it was not seen within its time."""
    return float(edit.get(leg, math.inf))


@contextlib.contextmanager
def _demo(runtime: Path) -> Iterator[None]:
    """The digits example, for as long as it is needed."""
    command = [sys.executable, "examples/01_digits.py", "--pace", str(PACE), "--epochs", "1000"]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "REVACNN_RUNTIME_DIR": str(runtime)}
    quiet = subprocess.DEVNULL
    demo = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=quiet, stderr=quiet)
    try:
        yield
    finally:
        demo.terminate()
        demo.wait(20)


def _edits(count: int) -> list[dict[str, Any]]:
    with (
        tempfile.TemporaryDirectory() as folder,
        _demo(Path(folder)),
        serve(Path(folder)) as (address, server),
        chromium() as browser,
    ):
        page = browser.new_page(viewport={"width": 1680, "height": 960})
        page.goto(address)
        page.wait_for_function("window.revacnn?.ready === true", timeout=120_000)
        wait_until_warm(server)
        found = []
        for i in range(count + 1):
            found.append(page.evaluate(EDIT, [LAYER, "more" if i % 2 == 0 else "less"]))
            page.wait_for_timeout(500)
        return found[1:]  # the first compiles


def tell_soak(report: Report, minutes: float) -> None:
    """Memory of page and server while a training is edited again and again."""
    seconds, edits = 60 * minutes, max(1, round(EDITS_PER_MINUTE * minutes))
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        runtime = Path(folder)
        with (
            training(runtime, "--net", "resnet18", "--hz", "20"),
            serve(runtime) as (address, server),
        ):
            page = open_page(browser, address)
            wait_until_warm(server)
            began, known = time.monotonic(), {**os.environ}
            os.environ["REVACNN_RUNTIME_DIR"] = folder
            try:
                with attach() as run:
                    settle = min(SETTLE, seconds / 4)
                    _edit_for(run, settle, 1)
                    first = _memory(page, server)
                    _edit_for(run, seconds - settle, edits - 1)
            finally:
                os.environ.clear()
                os.environ.update(known)
            last = _memory(page, server)
            minutes = (time.monotonic() - began) / 60
    for name, before, after in zip(("browser heap", "server memory"), first, last, strict=True):
        growth = 100 * (after / before - 1)
        report.note(f"{name}: {before / 2**20:.1f} MB after {settle:.0f} s, {after / 2**20:.1f} MB "
                    f"after {minutes:.1f} min and {edits} edits")  # fmt: skip
        report.check(f"soak, {name}, growth, %", growth, f"<= {GROWTH:g}", growth <= GROWTH)


def _edit_for(run: Run, seconds: float, edits: int) -> None:
    """So many edits, evenly over this time: a filter more, a filter less."""
    began = time.monotonic()
    for i in range(edits):
        name = "layer2.0.conv1"
        run.apply(AddFilters(name, 1) if i % 2 == 0 else RemoveFilters(name, [i % 60]))
        while time.monotonic() - began < (i + 1) * seconds / max(1, edits):
            run.poll()
            time.sleep(0.2)


def _memory(page: Any, server: int) -> tuple[float, float]:
    """Bytes: of the page's heap after a collection, and of the server process."""
    client = page.context.new_cdp_session(page)
    for _ in range(2):
        client.send("HeapProfiler.collectGarbage")
    heap = float(client.send("Runtime.getHeapUsage")["usedSize"])
    client.detach()
    return heap, float(resident_bytes(server))
