"""What the viewer's benchmarks share: a browser, an open page, and what is read off both.

A real bokeh server and a real Chromium with software rendering, so that a machine without a
display measures the same.
"""

from __future__ import annotations

import os
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

READY = "window.revacnn?.ready === true"
WARM_SECONDS = 60.0  # for the layouts' process, which compiles at its start

# For a while: the frames of the page or of its nodes, whichever were fewer; every frame's length;
# how old the shown numbers were at every frame, and of every snapshot when it was published, read,
# sent, received and painted.
SAMPLE = """async (seconds) => {
  const frames = [], ages = [], began = performance.now(), from = Date.now(), sent = revacnn.sent
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
  return {fps, hz: (revacnn.sent - sent) / took, frames, ages,
          times: revacnn.times.filter((one) => one[0] >= from)}
}"""


class Sample(NamedTuple):
    """What was seen of one page for a while. Milliseconds, where nothing else is said."""

    fps: float
    slow_frame: float  # 95th percentile
    hz: float  # updates a second
    late: list[float]  # publishing to painting, of every snapshot
    legs: list[list[float]]  # of every snapshot: to be read, sent, received, painted
    ages: list[tuple[float, float]]  # (time, age of what is shown), at every frame
    processor: float  # percent of a core, of the server


def percentile(values: list[float], percent: int) -> float:
    """NaN where there is nothing to look at."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return ordered[min(last, len(ordered) * percent // 100)] if ordered else float("nan")


def open_page(browser: Any, address: str) -> Any:
    """A page that shows the network."""
    page = browser.new_page(viewport={"width": 1680, "height": 960})
    page.goto(address)
    page.wait_for_function(READY, timeout=60_000)
    return page


def sample(page: Any, server: int, seconds: float) -> Sample:
    """Watch a page, and the server process of this id, for so long."""
    before, began = processor_seconds(server), time.monotonic()
    seen = page.evaluate(SAMPLE, seconds)
    spent = (processor_seconds(server) - before) / (time.monotonic() - began)
    times = [one for one in seen["times"] if len(one) == 5]
    return Sample(
        fps=seen["fps"],
        slow_frame=percentile(seen["frames"], 95),
        hz=seen["hz"],
        late=[one[-1] - one[0] for one in times],
        legs=[[b - a for a, b in pairwise(one)] for one in times],
        ages=[(when, age) for when, age in seen["ages"]],
        processor=100 * spent,
    )


def processor_seconds(process: int) -> float:
    """Processor time a process has taken so far, its children not included."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(process: int) -> int:
    """Memory of a process."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def children(process: int) -> list[int]:
    """Ids of the processes that this one has started."""
    found = []
    for task in Path(f"/proc/{process}/task").iterdir():
        found += [int(one) for one in (task / "children").read_text().split()]
    return found


def wait_until_warm(server: int, seconds: float = WARM_SECONDS) -> None:
    """Wait until the process that computes layouts has compiled what it needs."""
    deadline = time.monotonic() + seconds
    quiet = 0
    while quiet < 2 and time.monotonic() < deadline:
        before = {child: processor_seconds(child) for child in children(server)}
        time.sleep(1.0)
        busy = max((processor_seconds(child) - spent for child, spent in before.items()), default=0)
        quiet = quiet + 1 if busy < 0.5 else 0
