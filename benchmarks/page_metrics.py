"""Frame rate, latency and CPU time of an open page and its server.

A real Bokeh server and a real Chromium with software rendering, so that machines without a display
measure the same.
"""

from __future__ import annotations

import os
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from tests.viewer.processes import access_cookie

READY = "() => window.revacnn?.ready === true"  # a function: the page forbids eval
VIEWPORT = {"width": 1680, "height": 960}
READY_SECONDS = 120.0  # at most, until the page shows the network
WARM_UP_SECONDS = 60.0  # at most, for the worker process of the layouts, which compiles at start
IDLE_SHARE = 0.5  # of a core; a worker below it has compiled everything

# Measures for a number of seconds: the frame rate of the page or of its nodes, whichever is lower;
# the length of each frame; the age of the displayed values in each frame; and the times at which
# each snapshot was published, read, sent, received and painted.
MEASURE = """async (seconds) => {
  const frames = [], ages = [], began = performance.now(), from = Date.now()
  const received = revacnn.received
  const nodes = revacnn.network.nodes, painted = nodes.frames // by the nodes' worker
  let last = began
  await new Promise((done) => {
    const frame = (now) => {
      frames.push(now - last)
      last = now
      const newest = revacnn.times.at(-1)
      if (newest) ages.push([Date.now() - from, Date.now() - newest[0]])
      if (now - began > 1000 * seconds) done()
      else requestAnimationFrame(frame)
    }
    requestAnimationFrame(frame)
  })
  const took = (performance.now() - began) / 1000
  const fps = Math.min(frames.length, nodes.frames - painted) / took
  return {fps, hz: (revacnn.received - received) / took, frames, ages,
          times: revacnn.times.filter((one) => one[0] >= from)}
}"""


# What a new visitor loads, and when the network is painted. Script is counted as it is after
# decompression: Bokeh's server sends it uncompressed. Workers load modules that the page has, too.
START = """() => {
  const files = new Map(performance.getEntriesByType("resource")
    .filter(({name}) => /\\.js(\\?|$)/.test(name))
    .map(({name, decodedBodySize}) => [name.split("?")[0], decodedBodySize]))
  const written = [...document.scripts].filter(({src, type}) => !src && type !== "application/json")
  const bytes = [...files.values(), ...written.map(({text}) => text.length)]
  return {script_bytes: bytes.reduce((sum, size) => sum + size, 0),
          first_picture: performance.getEntriesByName("first picture")[0].startTime}
}"""


class PageStart(NamedTuple):
    """How a page starts whose browser has nothing of it in its cache.

    Attributes:
        script_bytes: Size of all scripts.
        first_picture: Milliseconds from the navigation until the network is painted.
    """

    script_bytes: int
    first_picture: float


class PageMetrics(NamedTuple):
    """Measurements of one page over some seconds. Times are in milliseconds.

    Attributes:
        fps: Frames per second of the whole page.
        frame_p95: 95th percentile of the length of a frame.
        hz: Updates per second.
        latencies: Time from publishing to painting, of each snapshot.
        legs: Durations until each snapshot was read, sent, received and painted.
        ages: (time, age of the displayed values) at each frame.
        server_percent: CPU time of the server, in percent of a core.
    """

    fps: float
    frame_p95: float
    hz: float
    latencies: list[float]
    legs: list[list[float]]
    ages: list[tuple[float, float]]
    server_percent: float


def percentile(values: list[float], percent: int) -> float:
    """Return a percentile, or NaN if there are no values."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return ordered[min(last, len(ordered) * percent // 100)] if ordered else float("nan")


def open_network_page(browser: Any, address: str, *, reduced_motion: bool = False) -> Any:
    """Open the page and wait until it shows the network."""
    motion = "reduce" if reduced_motion else "no-preference"
    page = browser.new_page(viewport=VIEWPORT, reduced_motion=motion)
    page.context.add_cookies([{**access_cookie(address), "url": address}])
    page.goto(address)
    page.wait_for_function(READY, timeout=1000 * READY_SECONDS)
    return page


def measure_page_start(browser: Any, address: str) -> PageStart:
    """Open a page of a fresh profile, measure its start, and close it."""
    page = open_network_page(browser, address)
    measured = page.evaluate(START)
    page.close()
    return PageStart(**measured)


def measure_page(page: Any, server: int, seconds: float) -> PageMetrics:
    """Measure a page and the server process with this id for some seconds."""
    before, start = cpu_seconds(server), time.monotonic()
    measured = page.evaluate(MEASURE, seconds)
    server_share = (cpu_seconds(server) - before) / (time.monotonic() - start)
    times = [one for one in measured["times"] if len(one) == 5]
    return PageMetrics(
        fps=measured["fps"],
        frame_p95=percentile(measured["frames"], 95),
        hz=measured["hz"],
        latencies=[one[-1] - one[0] for one in times],
        legs=[[b - a for a, b in pairwise(one)] for one in times],
        ages=[(when, age) for when, age in measured["ages"]],
        server_percent=100 * server_share,
    )


def cpu_seconds(process: int) -> float:
    """Return the CPU time of a process so far, without its children."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(process: int) -> int:
    """Return the resident memory of a process."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def child_process_ids(process: int) -> list[int]:
    """Return the ids of the processes that a process has started."""
    found = []
    for task in Path(f"/proc/{process}/task").iterdir():
        found += [int(one) for one in (task / "children").read_text().split()]
    return found


def wait_until_warm(server: int, seconds: float = WARM_UP_SECONDS) -> None:
    """Wait until the worker process of the layouts has been idle for two seconds."""
    deadline = time.monotonic() + seconds
    idle = 0
    while idle < 2 and time.monotonic() < deadline:
        before = {child: cpu_seconds(child) for child in child_process_ids(server)}
        time.sleep(1.0)
        busiest = max((cpu_seconds(child) - spent for child, spent in before.items()), default=0)
        idle = idle + 1 if busiest < IDLE_SHARE else 0
