"""How fluent the page is, how late what it shows, and what that costs.

``python -m benchmarks.viewer [--nets ...] [--runs N] [--soak MINUTES] [--json FILE] [--check]
[--quick]``

A made-up training publishes ten snapshots a second, at any moment within a browser's frame. Frames
are those of the whole page, all charts included. *Late* is the time from a snapshot's publishing to
the end of the browser's painting of it. The page notes when its own part is painted and the nodes'
worker when the nodes are; the later of the two counts, however long it takes the page to hear of
it. The paths, new with every other snapshot and drawn a strip a frame, follow and are not counted.
*Age* is how old the shown numbers were, looked at in every frame (so 50 ms more on average, and
more where updates are rare). Processor time is that of the server process, in percent of a core.

On a machine that is busy with other things the browser gets less of it, and all figures suffer:
the load is noted. ``--soak`` watches memory for so long (the figure is meant for 30 minutes).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import viewer_edits
from benchmarks.page_metrics import Sample, open_page, percentile, sample, wait_until_warm
from benchmarks.report import Report, progress_bar
from tests.browser.chromium import chromium
from tests.viewer.processes import serve, training

FRAMES = {"alexnet": 50, "resnet18": 50, "resnet50": 40, "densenet121": 40, "resnet152": 30}
LARGE = "resnet50"  # 26 560 filters: the one whose delays are looked at
HZ = 10
THROTTLE = 6
LEGS = ("to be read", "to be sent", "to arrive", "to be painted")
NAN = float("nan")


class Plan(NamedTuple):
    """How long to look at what."""

    runs: int
    seconds: float
    throttled: float  # seconds
    tabs: int  # further ones


class Figures(NamedTuple):
    """Of one network; the last four of `LARGE` only."""

    samples: list[Sample]
    throttled: Sample | None = None
    further: float = NAN


def measure(net: str, plan: Plan) -> Figures:
    """The page alone, several times; slowed down; and the server's cost of further tabs."""
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        runtime = Path(folder)
        with training(runtime, "--net", net, "--hz", str(HZ)), serve(runtime) as (address, server):
            page = open_page(browser, address)
            wait_until_warm(server)
            samples = [sample(page, server, plan.seconds) for _ in range(plan.runs)]
            if net != LARGE:
                return Figures(samples)
            throttled = _throttled(page, server, plan.throttled)
            alone = statistics.median(one.processor for one in samples)
            return Figures(
                samples, throttled, _further(browser, address, page, server, alone, plan)
            )


def _throttled(page: Any, server: int, seconds: float) -> Sample:
    client = page.context.new_cdp_session(page)
    client.send("Emulation.setCPUThrottlingRate", {"rate": THROTTLE})
    time.sleep(1.0)
    seen = sample(page, server, seconds)
    client.send("Emulation.setCPUThrottlingRate", {"rate": 1})
    return seen


def _further(browser: Any, address: str, page: Any, server: int, alone: float, plan: Plan) -> float:
    if not plan.tabs:
        return NAN
    for _ in range(plan.tabs):
        open_page(browser, address)
    time.sleep(1.0)
    together = [sample(page, server, plan.seconds).processor for _ in range(min(3, plan.runs))]
    return (statistics.median(together) - alone) / plan.tabs


def tell(report: Report, net: str, figures: Figures) -> None:
    """A line of the table, and what must be reached."""
    median = statistics.median
    late = [percentile(one.late, 50) for one in figures.samples]
    latest = [percentile(one.late, 95) for one in figures.samples]
    fps = median(one.fps for one in figures.samples)
    processor = median(one.processor for one in figures.samples)
    slow = median(one.slow_frame for one in figures.samples)
    hz = median(one.hz for one in figures.samples)
    report.row(net, *(round(value, 1) for value in (fps, slow, hz, median(late), median(latest),
                                                    processor)))  # fmt: skip
    report.check(f"{net}: frames/s", fps, f">= {FRAMES[net]}", fps >= FRAMES[net])
    if figures.throttled is None:
        return
    _at_most(report, f"{net}: late, median, ms", median(late), 25)
    _at_most(report, f"{net}: late, p95, ms", median(latest), 60)
    _at_most(report, f"{net}: server, % of a core", processor, 10)
    if figures.further == figures.further:
        _at_most(report, f"{net}: server, further tab, %", figures.further, 4)
    _tell_throttled(report, net, figures.throttled)
    report.note(f"{net}, where the time goes (median, p95, ms): {_legs(figures.samples)}")


def _tell_throttled(report: Report, net: str, seen: Sample) -> None:
    third = seen.ages[-1][0] / 3 if seen.ages else 0.0
    first = percentile([age for when, age in seen.ages if when < third], 95)
    last = percentile([age for when, age in seen.ages if when > 2 * third], 95)
    name = f"{net}, page slowed {THROTTLE}x: age"
    _at_most(report, f"{name}, p95, ms", percentile([age for _, age in seen.ages], 95), 500)
    _at_most(report, f"{name}, p95 of the last third over that of the first", last / first, 1.5)
    report.note(
        f"{net}, page slowed {THROTTLE}x for {3 * third / 1000:.0f} s: {seen.fps:.1f} frames/s, "
        f"{seen.hz:.1f} updates/s, late {percentile(seen.late, 50):.0f} / "
        f"{percentile(seen.late, 95):.0f} ms, age p95 {first:.0f} ms at first, {last:.0f} at last"
    )


def _legs(samples: list[Sample]) -> str:
    legs = [leg for one in samples for leg in one.legs]
    parts = [[leg[i] for leg in legs] for i in range(len(LEGS))]
    return ", ".join(
        f"{name} {percentile(part, 50):.0f}, {percentile(part, 95):.0f}"
        for name, part in zip(LEGS, parts, strict=True)
    )


def _at_most(report: Report, name: str, value: float, limit: float) -> None:
    report.check(name, value, f"<= {limit:g}", value <= limit)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--nets", nargs="*", choices=[*FRAMES], default=[*FRAMES])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a run")
    parser.add_argument("--edits", type=int, default=40, help="timed on the demo; 0: none")
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES", help="watch memory")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--check", action="store_true", help="exit code 1 if a figure is missed")
    parser.add_argument("--quick", action="store_true", help="one short run of two networks")
    options = parser.parse_args(arguments)
    plan = Plan(options.runs, options.seconds, 60.0, 2)
    if options.quick:
        options.nets, options.edits, plan = ["alexnet", LARGE], 0, Plan(1, 4.0, 8.0, 0)
    report = Report(
        f"The page at {HZ} snapshots a second, {plan.runs} runs of {plan.seconds:g} s",
        ["network", "frames/s", "frame p95 ms", "updates/s", "late p50 ms", "late p95 ms",
         "server %"],
    )  # fmt: skip
    steps = len(options.nets) + bool(options.edits) + bool(options.soak)
    with progress_bar(steps) as advance:
        for net in options.nets:
            tell(report, net, measure(net, plan))
            report.save(options.json)
            advance(1)
        if options.edits:
            viewer_edits.tell_edits(report, options.edits)
            advance(1)
        if options.soak:
            viewer_edits.tell_soak(report, options.soak)
            advance(1)
    load = os.getloadavg()
    report.note(
        f"load at the end: {load[0]:.1f} (1 min), {load[1]:.1f} (5 min), {os.cpu_count()} cores"
    )
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())
