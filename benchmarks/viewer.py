"""Frame rate, latency and server load of the page.

``python -m benchmarks.viewer [--nets ...] [--runs N] [--soak MINUTES] [--reduced-motion]
[--json FILE] [--check] [--quick]``

A simulated training publishes ten snapshots per second, at any phase of the browser's frames.

- Frames are those of the whole page with all charts.
- Latency is the time from publishing a snapshot to the end of the browser's painting. The page
  records when its own part is painted, and the worker of the nodes when the nodes are. The later
  time counts. Paths, which change with every other snapshot and are painted one strip per frame,
  follow and do not count.
- Age is how old the displayed values are, sampled in every frame. It is the latency plus 50 ms on
  average, and more if updates are rare.
- The first picture is the time from the navigation until the network is painted, in a browser
  with an empty cache, from a server that has shown the page before. Script bytes are what such a
  browser loads.
- Server load is the CPU time of the server process in percent of a core.

On a busy machine all values are worse. The report notes the load. With ``--reduced-motion`` the
page paints updates only, not every frame. The processor is then mostly idle, and the latency shows
differences of a few milliseconds, such as that of one patch of Bokeh's server:
``REVACNN_BOKEH_PATCHES=nodelay python -m benchmarks.viewer --nets alexnet --reduced-motion``.
``--soak`` checks memory during edits. Its limits are meant for 30 minutes.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import viewer_edits
from benchmarks.page_metrics import (
    PageMetrics,
    PageStart,
    measure_page,
    measure_page_start,
    open_network_page,
    percentile,
    wait_until_warm,
)
from benchmarks.report import Report, argument_parser, progress_bar
from tests.browser.chromium import chromium
from tests.viewer.processes import serve, training

MIN_FPS = {
    "alexnet": 50,
    "alexnet_head": 50,
    "resnet18": 50,
    "resnet50": 40,
    "densenet121": 40,
    "resnet152": 30,
}
LARGE = "resnet50"  # 26,560 filters; only this network has limits for latency and server load
HZ = 10
SLOWDOWN = 6
MAX_LATENCY_MS, MAX_LATENCY_P95_MS = 25, 60
MAX_SERVER_PERCENT, MAX_PERCENT_PER_TAB = 10, 4
MAX_SLOW_AGE_MS = 500  # 95th percentile, in a slowed-down page
MAX_SCRIPT_BYTES, MAX_FIRST_PICTURE_MS = 2 * 2**20, 1500
STARTS = 3  # pages opened per network
MAX_AGE_GROWTH = 1.5  # last third of the time / first third
LEGS = ("read", "sent", "received", "painted")


class MeasurementPlan(NamedTuple):
    """Number and length of the measurements."""

    runs: int
    seconds: float  # per run
    slow_seconds: float
    more_tabs: int
    reduced_motion: bool = False


class NetMetrics(NamedTuple):
    """Measurements of one network. The last two are None unless it is `LARGE`.

    Attributes:
        starts: Pages that were opened and closed.
        runs: The page on its own.
        slow: A page whose browser is slowed down `SLOWDOWN` times.
        percent_per_tab: What a further tab adds to the server load.
    """

    starts: list[PageStart]
    runs: list[PageMetrics]
    slow: PageMetrics | None = None
    percent_per_tab: float | None = None


def measure_network_page(net: str, plan: MeasurementPlan) -> NetMetrics:
    """Measure the page several times; slowed down; and the server load of more tabs."""
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        runtime = Path(folder)
        with training(runtime, "--net", net, "--hz", str(HZ)), serve(runtime) as (address, server):
            open_network_page(browser, address).close()
            wait_until_warm(server)
            starts = [measure_page_start(browser, address) for _ in range(STARTS)]
            page = open_network_page(browser, address, reduced_motion=plan.reduced_motion)
            wait_until_warm(server)
            runs = [measure_page(page, server, plan.seconds) for _ in range(plan.runs)]
            if net != LARGE or plan.reduced_motion:
                return NetMetrics(starts, runs)
            slow = measure_slow_page(page, server, plan.slow_seconds)
            if not plan.more_tabs:
                return NetMetrics(starts, runs, slow)
            for _ in range(plan.more_tabs):
                open_network_page(browser, address)
            time.sleep(1.0)
            shared = [measure_page(page, server, plan.seconds) for _ in range(min(3, plan.runs))]
            added = median_server_percent(shared) - median_server_percent(runs)
            return NetMetrics(starts, runs, slow, added / plan.more_tabs)


def median_server_percent(runs: list[PageMetrics]) -> float:
    """Return the median server load."""
    return statistics.median(run.server_percent for run in runs)


def measure_slow_page(page: Any, server: int, seconds: float) -> PageMetrics:
    """Measure a page while Chromium slows its main thread down."""
    client = page.context.new_cdp_session(page)
    client.send("Emulation.setCPUThrottlingRate", {"rate": SLOWDOWN})
    time.sleep(1.0)
    metrics = measure_page(page, server, seconds)
    client.send("Emulation.setCPUThrottlingRate", {"rate": 1})
    return metrics


def report_net(report: Report, net: str, metrics: NetMetrics, reduced_motion: bool) -> None:
    """Add the row of a network, and its checks."""
    median = statistics.median
    runs = metrics.runs
    latency = median(percentile(run.latencies, 50) for run in runs)
    latency_p95 = median(percentile(run.latencies, 95) for run in runs)
    fps = median(run.fps for run in runs)
    server = median_server_percent(runs)
    frame, hz = median(run.frame_p95 for run in runs), median(run.hz for run in runs)
    picture = median(start.first_picture for start in metrics.starts)
    script = max(start.script_bytes for start in metrics.starts)
    values = (fps, frame, hz, latency, latency_p95, server)
    report.add_row(net, *(round(value, 1) for value in values), round(picture), script)
    report.check_at_most(f"{net}: first picture, ms", picture, MAX_FIRST_PICTURE_MS)
    report.check_at_most(f"{net}: script bytes", script, MAX_SCRIPT_BYTES)
    if not reduced_motion:
        report.check_at_least(f"{net}: frames/s", fps, MIN_FPS[net])
    if metrics.slow is None:
        return
    report.check_at_most(f"{net}: latency, median, ms", latency, MAX_LATENCY_MS)
    report.check_at_most(f"{net}: latency, p95, ms", latency_p95, MAX_LATENCY_P95_MS)
    report.check_at_most(f"{net}: server, % of a core", server, MAX_SERVER_PERCENT)
    if metrics.percent_per_tab is not None:
        report.check_at_most(
            f"{net}: server, per further tab, %", metrics.percent_per_tab, MAX_PERCENT_PER_TAB
        )
    report_slow_page(report, net, metrics.slow)
    report.add_note(f"{net}, time until (median, p95, ms): {describe_legs(runs)}")


def report_slow_page(report: Report, net: str, metrics: PageMetrics) -> None:
    """Check that a slow page skips snapshots instead of falling behind."""
    third = metrics.ages[-1][0] / 3 if metrics.ages else 0.0
    first = percentile([age for when, age in metrics.ages if when < third], 95)
    last = percentile([age for when, age in metrics.ages if when > 2 * third], 95)
    p95 = percentile([age for _, age in metrics.ages], 95)
    name = f"{net}, page slowed down {SLOWDOWN}x: age"
    report.check_at_most(f"{name}, p95, ms", p95, MAX_SLOW_AGE_MS)
    report.check_at_most(f"{name}, p95, last third / first third", last / first, MAX_AGE_GROWTH)
    report.add_note(
        f"{net}, page slowed down {SLOWDOWN}x for {3 * third / 1000:.0f} s: "
        f"{metrics.fps:.1f} frames/s, {metrics.hz:.1f} updates/s, "
        f"latency {percentile(metrics.latencies, 50):.0f} (p95 "
        f"{percentile(metrics.latencies, 95):.0f}) ms, age p95 {first:.0f} ms in the first third, "
        f"{last:.0f} in the last"
    )


def describe_legs(runs: list[PageMetrics]) -> str:
    """Return the median and the 95th percentile of each leg of a snapshot's way."""
    snapshots = [legs for run in runs for legs in run.legs]
    columns = [[legs[i] for legs in snapshots] for i in range(len(LEGS))]
    return ", ".join(
        f"{name} {percentile(column, 50):.0f}, {percentile(column, 95):.0f}"
        for name, column in zip(LEGS, columns, strict=True)
    )


def main() -> int:
    parser = argument_parser(__doc__, quick="one short run of two networks")
    parser.add_argument("--nets", nargs="*", choices=[*MIN_FPS], default=[*MIN_FPS])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="per run")
    parser.add_argument("--edits", type=int, default=40, help="timed edits of the demo; 0: none")
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES", help="check memory")
    parser.add_argument("--reduced-motion", action="store_true", help="paint updates only")
    options = parser.parse_args()
    plan = MeasurementPlan(options.runs, options.seconds, slow_seconds=60.0, more_tabs=2)
    if options.quick:
        options.nets, options.edits = ["alexnet", LARGE], 0
        plan = MeasurementPlan(1, 4.0, slow_seconds=8.0, more_tabs=0)
    if options.reduced_motion:
        options.edits, plan = 0, plan._replace(reduced_motion=True)
    report = Report(
        f"The page at {HZ} snapshots/s, {plan.runs} runs of {plan.seconds:g} s",
        [
            "network",
            "frames/s",
            "frame p95 ms",
            "updates/s",
            "latency p50 ms",
            "latency p95 ms",
            "server %",
            "first picture ms",
            "script bytes",
        ],
    )
    steps = len(options.nets) + bool(options.edits) + bool(options.soak)
    with progress_bar(steps) as advance:
        for net in options.nets:
            report_net(report, net, measure_network_page(net, plan), plan.reduced_motion)
            report.save(options.json)
            advance(1)
        if options.edits:
            viewer_edits.report_edits(report, options.edits)
            advance(1)
        if options.soak:
            viewer_edits.report_soak(report, options.soak)
            advance(1)
    load = os.getloadavg()
    report.add_note(
        f"load at the end: {load[0]:.1f} (1 min), {load[1]:.1f} (5 min), {os.cpu_count()} cores"
    )
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())
