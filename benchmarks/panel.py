"""How soon a click on a thumbnail shows everywhere.

``python -m benchmarks.panel``: the viewer with a made-up AlexNet at 10 Hz in Chromium (needs
Playwright; $REVACNN_CHROMIUM names another browser). A click counts as shown when the four views,
the network view and the words beside it all show the filter and the next frame has been painted.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Report, progress
from tests.viewer.processes import server, training

SHOWN_P95_MS = 150.0
CLICKS = 60
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
READY = "window.revacnn?.ready && revacnn.views?.coefficients?.n > 0"
LAID_OUT = "Object.values(revacnn.views).every((view) => view.data.status == '')"
# Clicks one filter of one view where it stands, and waits until it is shown everywhere.
CLICK = """([name, which]) => new Promise((resolve) => {
  const view = revacnn.views[name], at = view.positions(), [x, y] = at[which]
  const box = view.canvas.getBoundingClientRect()
  const place = {clientX: box.left + x, clientY: box.top + y}
  const event = {...place, bubbles: true, pointerId: 1, button: 0}
  const hit = view.ids[view.hit(event)], index = view.data.indices[view.row.get(hit)]
  view.canvas.setPointerCapture = () => {}
  const began = performance.now()
  view.canvas.dispatchEvent(new PointerEvent("pointerdown", event))
  view.canvas.dispatchEvent(new PointerEvent("pointerup", event))
  let local = null
  const look = () => {
    const now = performance.now() - began
    const all = Object.values(revacnn.views).every((one) => one.picked()[0] == hit)
    if (all && local == null) local = now
    const words = document.getElementById("filter").textContent.startsWith(`filter ${index}`)
    const network = revacnn.parts.selection.index == index
    const done = () => resolve([local, performance.now() - began])
    if (all && words && network) requestAnimationFrame(done)
    else if (now > 5000) resolve([local, 5000])
    else requestAnimationFrame(look)
  }
  look()
})"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--check", action="store_true", help="fail where a figure is missed")
    parser.add_argument("--quick", action="store_true", help="20 clicks instead of 60")
    options = parser.parse_args()
    report = Report(
        "Click on a thumbnail, AlexNet at 10 Hz", ["shown", "median ms", "p95 ms", "clicks"]
    )
    local, everywhere = _measure(20 if options.quick else CLICKS)
    for name, times in (("in the four views", local), ("everywhere", everywhere)):
        report.row(name, float(np.median(times)), float(np.percentile(times, 95)), len(times))
    p95 = float(np.percentile(everywhere, 95))
    report.check(
        "click to shown everywhere, p95, ms", p95, f"<= {SHOWN_P95_MS:g}", p95 <= SHOWN_P95_MS
    )
    return report.finish(options.json, options.check)


def _measure(clicks: int) -> tuple[list[float], list[float]]:
    """Milliseconds per click until shown in the views, and everywhere."""
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("REVACNN_CHROMIUM") or shutil.which("chromium")
    with (
        tempfile.TemporaryDirectory() as folder,
        training(Path(folder), "--net", "alexnet", "--hz", "10"),
        server(Path(folder)) as address,
        sync_playwright() as driver,
    ):
        browser = driver.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1680, "height": 960})
        page.goto(address)
        page.wait_for_function(READY, timeout=60_000)
        page.wait_for_function(LAID_OUT, timeout=120_000)
        times = _clicks(page, clicks)
        browser.close()
    return [a for a, _ in times], [b for _, b in times]


def _clicks(page: Any, clicks: int) -> list[tuple[float, float]]:
    views = ("coefficients", "gradients", "activations", "activation_gradients")
    times = []
    for i in progress(range(clicks + 1), "Clicks", total=clicks + 1):
        local, shown = page.evaluate(CLICK, [views[i % 4], (i * 29 + 7) % 64])
        times.append((float(local if local is not None else shown), float(shown)))
        page.wait_for_timeout(170)
    return times[1:]  # the first compiles


if __name__ == "__main__":
    sys.exit(main())
