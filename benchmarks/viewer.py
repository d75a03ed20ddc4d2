"""How fluent the page is, how old what it shows, and what that costs.

``python -m benchmarks.viewer [--nets ...] [--runs N] [--json FILE] [--check] [--quick]``

A real bokeh server and a real Chromium with software rendering (so a machine without a display
measures the same), with a made-up training that publishes ten snapshots a second. Frames are
those of the whole page, all charts included. The age is the time from a snapshot's publishing to
its painting in the browser. Processor time is that of the server process, in percent of a core.

On a machine that is busy with other things the browser gets less of it, and all figures suffer:
the load is noted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import sync_playwright

from benchmarks.report import Report, progress_bar
from tests.browser.chromium import ARGUMENTS
from tests.viewer.processes import serve, training

NETS = ["alexnet", "resnet18", "resnet50", "resnet152"]
FRAMES = {"alexnet": 50, "resnet18": 50, "resnet50": 40, "resnet152": 30}
HZ = 10
READY = "window.revacnn?.ready === true"

# Samples the age of what is painted, and the length of every frame, for a while.
SAMPLE = """async (seconds) => {
  const ages = [], frames = [], began = performance.now()
  const sent = revacnn.sent
  let last = began, seen = revacnn.age
  await new Promise((done) => {
    const frame = (now) => {
      frames.push(now - last)
      last = now
      if (revacnn.age !== seen) ages.push(1000 * (seen = revacnn.age))
      if (now - began > 1000 * seconds) done()
      else requestAnimationFrame(frame)
    }
    requestAnimationFrame(frame)
  })
  const took = (performance.now() - began) / 1000
  return {fps: frames.length / took, hz: (revacnn.sent - sent) / took, ages, frames}
}"""


class Sample(NamedTuple):
    """One run's figures."""

    fps: float
    slow_frame: float  # ms, 95th percentile
    hz: float
    age: float  # ms, median
    old: float  # ms, 95th percentile
    processor: float  # percent of a core, of the server


def percentile(values: list[float], percent: int) -> float:
    ordered = sorted(values)
    return (
        ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else float("nan")
    )


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    found = os.environ.get("REVACNN_CHROMIUM", "/usr/bin/chromium")
    with sync_playwright() as driver:
        path = found if os.path.exists(found) else None
        browser = driver.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


def open_page(browser: Any, address: str) -> Any:
    page = browser.new_page(viewport={"width": 1680, "height": 960})
    page.goto(address)
    page.wait_for_function(READY, timeout=60_000)
    return page


def sample(page: Any, pid: int, seconds: float) -> Sample:
    before, began = processor_seconds(pid), time.monotonic()
    found = page.evaluate(SAMPLE, seconds)
    spent = (processor_seconds(pid) - before) / (time.monotonic() - began)
    return Sample(
        found["fps"],
        percentile(found["frames"], 95),
        found["hz"],
        percentile(found["ages"], 50),
        percentile(found["ages"], 95),
        100 * spent,
    )


def measure(net: str, runs: int, seconds: float) -> tuple[list[Sample], Sample, float]:
    """The page alone, `runs` times; throttled to a sixth; and the server's cost of a second tab."""
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        runtime = Path(folder)
        with training(runtime, "--net", net, "--hz", str(HZ)), serve(runtime) as (address, pid):
            page = open_page(browser, address)
            time.sleep(2.0)
            samples = [sample(page, pid, seconds) for _ in range(runs)]
            client = page.context.new_cdp_session(page)
            client.send("Emulation.setCPUThrottlingRate", {"rate": 6})
            time.sleep(1.0)
            throttled = sample(page, pid, 2 * seconds)
            client.send("Emulation.setCPUThrottlingRate", {"rate": 1})
            open_page(browser, address)
            time.sleep(1.0)
            both = sample(page, pid, seconds)
    alone = statistics.median(one.processor for one in samples)
    return samples, throttled, both.processor - alone


def medians(samples: list[Sample]) -> Sample:
    return Sample(*(statistics.median(column) for column in zip(*samples, strict=True)))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--nets", nargs="+", choices=NETS, default=NETS)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a run")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--check", action="store_true", help="exit code 1 if a figure is missed")
    parser.add_argument("--quick", action="store_true", help="one short run of two networks")
    options = parser.parse_args(arguments)
    if options.quick:
        options.nets, options.runs, options.seconds = ["alexnet", "resnet50"], 1, 4.0
    report = Report(
        f"The page at {HZ} snapshots a second, {options.runs} runs of {options.seconds:g} s",
        ["network", "frames/s", "frame p95 ms", "updates/s", "age p50 ms", "age p95 ms",
         "throttled age p95 ms", "server %", "further tab %"],
    )  # fmt: skip
    with progress_bar(len(options.nets)) as advance:
        for net in options.nets:
            samples, throttled, further = measure(net, options.runs, options.seconds)
            typical = medians(samples)
            report.row(
                net, round(typical.fps, 1), round(typical.slow_frame, 1), round(typical.hz, 1),
                round(typical.age, 1), round(typical.old, 1), round(throttled.old, 1),
                round(typical.processor, 1), round(further, 1),
            )  # fmt: skip
            report.check(
                f"{net}: frames/s", typical.fps, f">= {FRAMES[net]}", typical.fps >= FRAMES[net]
            )
            if net == "resnet50":
                report.check(f"{net}: age p50, ms", typical.age, "<= 25", typical.age <= 25)
                report.check(f"{net}: age p95, ms", typical.old, "<= 60", typical.old <= 60)
                report.check(
                    f"{net}: throttled age p95, ms", throttled.old, "<= 500", throttled.old <= 500
                )
                report.check(
                    f"{net}: server, % of a core",
                    typical.processor,
                    "<= 10",
                    typical.processor <= 10,
                )
                report.check(f"{net}: further tab, %", further, "<= 4", further <= 4)
            advance(1)
    load = os.getloadavg()
    report.note(
        f"load at the end: {load[0]:.1f} (1 min), {load[1]:.1f} (5 min), {os.cpu_count()} cores"
    )
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())
