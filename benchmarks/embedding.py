"""How fast, how steady and how true the layouts of an opened layer are.

``python -m benchmarks.embedding``: layouts of the filters, gradients, activation maps and
activation gradients of a conv that learns digits, refreshed every 10 batches as the viewer does:
each begun from the last, both gradients averaged as they are there. Small layers learn several
times, from other initial weights.

- first: all four views from nothing, in a process that has imported and compiled all it needs.
- refresh: all four views, through the worker process; median of the refreshes.
- moved: way of the filters from refresh to refresh in the view of coefficients, mean, in percent
  of the layout's rms radius.
- true: trustworthiness (k = 7) of the layout, as a part of that of one made from nothing of the
  same data (Venna and Kaski 2001). In small layers, two layouts from nothing of data that hardly
  differs differ by 1 % themselves, so this is the median over the last refreshes of all runs.
- loop delay: 99th percentile of how much later than asked an event loop wakes up that polls the
  worker as the viewer's does, while it lays out four views from nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from dataclasses import dataclass, field

import numpy as np
from sklearn.manifold import trustworthiness

from benchmarks.filter_features import VIEWS, snapshots
from benchmarks.report import Report, progress
from revacnn_lightning.diagnostics.degenerate import DegenerateKind, unit_rows
from viewer.embedding.feature_average import FeatureAverage
from viewer.embedding.projection import (
    Method,
    Projection,
    ProjectionJob,
    project,
    relative_change,
)
from viewer.embedding.worker import EmbeddingWorker, ProjectionFailure

REFRESH_HZ = {64: 4.0, 128: 2.0, 512: 0.5, 2048: 0.05}  # what must be reached
REFRESHES = {64: 25, 128: 25, 512: 12, 2048: 6}
SEEDS = {64: 3, 128: 3, 512: 1, 2048: 1}  # initial weights
COMPARED = {64: 5, 128: 5, 512: 3, 2048: 1}  # last refreshes that are compared with layouts anew
AVERAGED = VIEWS[1], VIEWS[3]
NEIGHBOURS = 7
MOST_MOVED = 0.05
LEAST_TRUE = 0.97
LOOP_DELAY_MS = 50.0
POLL_SECONDS = 0.01
LOOP_SECONDS = 0.005

Features = dict[str, np.ndarray]
Layouts = dict[str, Projection]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--check", action="store_true", help="fail where a figure is missed")
    parser.add_argument("--quick", action="store_true", help="64 and 512 filters, few refreshes")
    parser.add_argument("--method", choices=["tsne", "umap", "pca"], default="tsne")
    parser.add_argument(
        "--filters", type=int, nargs="+", choices=list(REFRESH_HZ), help="only these"
    )
    options = parser.parse_args()
    sizes = options.filters or ([64, 512] if options.quick else list(REFRESH_HZ))
    report = Report(
        f"Layouts of four views ({options.method})",
        ["filters", "first s", "refresh Hz", "moved %", *(f"true: {view}" for view in VIEWS)],
    )
    worker = EmbeddingWorker()
    _warm_up(worker)
    for n in progress(sizes, "Layouts", total=len(sizes)):
        _measure(report, worker, options.method, n, options.quick)
    worker.close()
    n = sizes[-1]
    delay = asyncio.run(_loop_delay(next(snapshots(n, 1)), options.method))
    report.check(f"loop delay p99, {n} filters, ms", delay, f"<= {LOOP_DELAY_MS:g}", delay <= 50)
    return report.finish(options.json, options.check)


def _warm_up(worker: EmbeddingWorker) -> None:
    """Wait until the process has everything compiled, as it has soon after a server's start."""
    features = np.random.default_rng(0).normal(size=(64, 16))
    worker.submit("warm-up", ProjectionJob(features, np.arange(64), "umap"))
    while not worker.poll():
        time.sleep(POLL_SECONDS)


def _measure(report: Report, worker: EmbeddingWorker, method: Method, n: int, quick: bool) -> None:
    refreshes, seeds = (8, 1) if quick else (REFRESHES[n], SEEDS[n])
    chains = [_follow(worker, method, n, refreshes, seed) for seed in range(seeds)]
    first = float(np.median([chain.seconds[0] for chain in chains]))
    hz = float(1 / np.median([s for chain in chains for s in chain.seconds[1:]]))
    way = max(float(np.mean(chain.moved)) for chain in chains)
    true = {view: _trueness(chains, view, method, COMPARED[n]) for view in VIEWS}
    report.row(n, first, hz, 100 * way, *true.values())
    report.check(f"refresh of {n} filters, Hz", hz, f">= {REFRESH_HZ[n]}", hz >= REFRESH_HZ[n])
    report.check(f"moved per refresh, {n} filters", way, f"<= {MOST_MOVED}", way <= MOST_MOVED)
    for view, part in true.items():
        ok = part >= LEAST_TRUE
        report.check(f"true after {refreshes} refreshes, {n}, {view}", part, ">= 0.97", ok)


@dataclass
class Chain:
    """Layouts, each begun from the last, and what they were made of."""

    features: list[Features] = field(default_factory=list)
    layouts: list[Layouts] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    moved: list[float] = field(default_factory=list)  # in the view of coefficients


def _follow(worker: EmbeddingWorker, method: Method, n: int, refreshes: int, seed: int) -> Chain:
    chain = Chain()
    averages = {view: FeatureAverage() for view in AVERAGED}
    last: Layouts = {}
    before: Features = {}
    for features in snapshots(n, refreshes + 1, seed):
        for view, average in averages.items():
            features[view] = average.add(np.arange(n), features[view])
        began = time.perf_counter()
        new = _refresh(worker, method, features, last, before)
        chain.seconds.append(time.perf_counter() - began)
        if last:
            chain.moved.append(_displacement(last[VIEWS[0]], new[VIEWS[0]]))
        chain.features.append(features)
        chain.layouts.append(new)
        last, before = new, features
    return chain


def _refresh(
    worker: EmbeddingWorker, method: Method, features: Features, last: Layouts, before: Features
) -> Layouts:
    """The four layouts, each begun from the last."""
    for view, rows in features.items():
        change = relative_change(before[view], rows) if before else 1.0
        worker.submit(
            view, ProjectionJob(rows, np.arange(len(rows)), method, last.get(view), change)
        )
    done: Layouts = {}
    while len(done) < len(features):
        for view, layout in worker.poll():
            if isinstance(layout, ProjectionFailure):
                raise RuntimeError(f"{view}: {layout.reason}")
            done[str(view)] = layout
        time.sleep(POLL_SECONDS)
    return done


def _displacement(before: Projection, after: Projection) -> float:
    """Mean way of the filters that stand among the others in both, in rms radii."""
    both = (before.degenerate == DegenerateKind.NONE) & (after.degenerate == DegenerateKind.NONE)
    way = np.linalg.norm(after.positions[both] - before.positions[both], axis=1).mean()
    centred = before.positions[both] - before.positions[both].mean(axis=0)
    return float(way / np.sqrt((centred**2).sum(axis=1).mean()))


def _trueness(chains: list[Chain], view: str, method: Method, compared: int) -> float:
    """Trustworthiness of the last layouts as a part of that of ones from nothing, median."""
    parts = []
    for chain in chains:
        last = zip(chain.features[-compared:], chain.layouts[-compared:], strict=True)
        parts += [_part(features[view], layouts[view], method) for features, layouts in last]
    return float(np.median(parts))


def _part(features: np.ndarray, layout: Projection, method: Method) -> float:
    cold = project(ProjectionJob(features, layout.ids, method))
    sound = layout.degenerate == DegenerateKind.NONE
    units = unit_rows(features[sound])
    of = [
        trustworthiness(units, each.positions[sound], n_neighbors=NEIGHBOURS)
        for each in (layout, cold)
    ]
    return float(of[0] / of[1])


async def _loop_delay(features: Features, method: Method) -> float:
    """99th percentile (ms) of an event loop's delay while four layouts are made from nothing."""
    worker = EmbeddingWorker()
    worker.submit(
        "warm-up", ProjectionJob(next(iter(features.values()))[:64], np.arange(64), method)
    )
    while not worker.poll():
        await asyncio.sleep(POLL_SECONDS)
    for view, rows in features.items():
        worker.submit(view, ProjectionJob(rows, np.arange(len(rows)), method))
    delays, done, polled = [], 0, 0.0
    while done < len(features):
        asked = time.perf_counter()
        await asyncio.sleep(LOOP_SECONDS)
        delays.append(time.perf_counter() - asked - LOOP_SECONDS)
        if asked - polled > 0.025:
            polled = asked
            began = time.perf_counter()
            done += len(worker.poll())
            delays.append(time.perf_counter() - began)  # nothing else can run meanwhile
    worker.close()
    return 1000 * float(np.percentile(delays, 99))


if __name__ == "__main__":
    sys.exit(main())
