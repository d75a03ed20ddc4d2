"""Part of `benchmarks.viewer`: time until an edit is visible, and memory over many edits."""

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

from benchmarks.page_metrics import open_network_page, percentile, resident_bytes, wait_until_warm
from benchmarks.report import Report
from revacnn_lightning import AddFilters, RemoveFilters, Run, attach
from tests.browser.chromium import chromium
from tests.viewer.processes import ROOT, serve, training

MAX_EDIT_MS = 250.0  # in addition to one batch
BATCHES_PER_SECOND = 20  # of the demo
MAX_GROWTH_PERCENT = 10.0
EDITS_PER_MINUTE = 100 / 30
SETTLE_SECONDS = 60.0  # before the first measurement of memory; less in a short soak
LAYER = "features.conv2"
SOAK_LAYER = "layer2.0.conv1"
LEGS = ("staged", "applied", "shown")

# Makes one edit with the page's buttons. Returns the times from the first click until the edit is
# staged, until the reply is shown, and until the new network is painted.
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


def report_edits(report: Report, count: int) -> None:
    """Time edits of a real training by the page's buttons, from the click to the painted result."""
    edits = _time_edits(count)
    legs = {leg: [float(edit.get(leg, math.inf)) for edit in edits] for leg in LEGS}
    described = ", ".join(
        f"{leg} {percentile(times, 50):.0f}, {percentile(times, 95):.0f}"
        for leg, times in legs.items()
    )
    report.add_note(
        f"from the first click, in the digits demo (median, p95, ms): {described}; "
        f"{count} edits at {BATCHES_PER_SECOND} batches/s"
    )
    report.check_at_most(
        "digits: click to staged, applied and shown, p95, ms",
        percentile(legs["shown"], 95),
        MAX_EDIT_MS + 1000 / BATCHES_PER_SECOND,
    )


@contextlib.contextmanager
def _demo(runtime: Path) -> Iterator[None]:
    """Run the digits example."""
    options = ["--pace", str(BATCHES_PER_SECOND), "--epochs", "1000"]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    demo = subprocess.Popen(
        [sys.executable, "examples/01_digits.py", *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "REVACNN_RUNTIME_DIR": str(runtime)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        demo.terminate()
        demo.wait(20)


def _time_edits(count: int) -> list[dict[str, Any]]:
    """Add and remove a filter in turn. Return the milliseconds of each edit's legs."""
    with (
        tempfile.TemporaryDirectory() as folder,
        _demo(Path(folder)),
        serve(Path(folder)) as (address, server),
        chromium() as browser,
    ):
        page = open_network_page(browser, address)
        wait_until_warm(server)
        edits = []
        for i in range(count + 1):
            edits.append(page.evaluate(EDIT, [LAYER, "more" if i % 2 == 0 else "less"]))
            page.wait_for_timeout(500)
        return edits[1:]  # the first one compiles


def report_soak(report: Report, minutes: float) -> None:
    """Check the memory of the page and the server while a training is edited repeatedly."""
    seconds, edits = 60 * minutes, max(1, round(EDITS_PER_MINUTE * minutes))
    settle = min(SETTLE_SECONDS, seconds / 4)
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        runtime = Path(folder)
        with (
            training(runtime, "--net", "resnet18", "--hz", "20"),
            serve(runtime) as (address, server),
        ):
            page = open_network_page(browser, address)
            wait_until_warm(server)
            start = time.monotonic()
            with attach(next(runtime.glob("*.json"))) as run:
                _edit_for(run, settle, 1)
                first = _memory(page, server)
                _edit_for(run, seconds - settle, edits - 1)
            last = _memory(page, server)
            minutes = (time.monotonic() - start) / 60
    for name, before, after in zip(("browser heap", "server memory"), first, last, strict=True):
        report.add_note(
            f"{name}: {before / 2**20:.1f} MB after {settle:.0f} s, {after / 2**20:.1f} MB "
            f"after {minutes:.1f} min and {edits} edits"
        )
        report.check_at_most(
            f"soak, {name}, growth, %", 100 * (after / before - 1), MAX_GROWTH_PERCENT
        )


def _edit_for(run: Run, seconds: float, edits: int) -> None:
    """Add and remove a filter in turn, with edits spread evenly over the time."""
    start = time.monotonic()
    for i in range(edits):
        run.apply(AddFilters(SOAK_LAYER, 1) if i % 2 == 0 else RemoveFilters(SOAK_LAYER, [i % 60]))
        while time.monotonic() - start < (i + 1) * seconds / max(1, edits):
            run.poll()
            time.sleep(0.2)


def _memory(page: Any, server: int) -> tuple[float, float]:
    """Return the bytes of the page's heap after garbage collection, and of the server process."""
    client = page.context.new_cdp_session(page)
    for _ in range(2):
        client.send("HeapProfiler.collectGarbage")
    heap = float(client.send("Runtime.getHeapUsage")["usedSize"])
    client.detach()
    return heap, float(resident_bytes(server))
