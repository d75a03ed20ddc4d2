"""Speed, stability and quality of the 2D layouts of a layer's filters.

``python -m benchmarks.embedding [--filters ...] [--method ...] [--json FILE] [--check] [--quick]``

A convolution learns handwritten digits. Its coefficients, gradients, activation maps and activation
gradients are laid out every 10 batches, as in the viewer: each layout starts from the last one, and
both kinds of gradients are averaged. Small layers are trained several times from different initial
weights.

- first: seconds for all four views without a previous layout, in a warm worker process.
- refresh: updates of all four views per second, through the worker process; median.
- moved: mean displacement of the filters per refresh in the view of coefficients, in percent of
  the layout's RMS radius.
- trust: trustworthiness (k = 7; Venna and Kaski 2001) of the layout, relative to a layout of the
  same data without a start. Two such layouts of nearly equal data differ by 1 % in small layers, so
  this is the median over the last refreshes of all trainings.
- loop delay: 99th percentile of the delay of an event loop that polls the worker as the viewer
  does, while the worker computes four views without a start.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass, field

import numpy as np
from sklearn.manifold import trustworthiness

from benchmarks.filter_features import VIEWS, feature_snapshots
from benchmarks.report import Report, argument_parser, progress
from revacnn_lightning.diagnostics.degenerate import ComparisonExclusion, normalize_rows
from viewer.embedding.feature_average import FilterFeatureMovingAverage
from viewer.embedding.projection import (
    Method,
    Projection,
    ProjectionJob,
    mean_direction_change,
    project,
)
from viewer.embedding.worker import EmbeddingWorker, ProjectionFailure

MIN_REFRESH_HZ = {64: 4.0, 128: 2.0, 512: 0.5, 2048: 0.05}  # by number of filters
REFRESHES = {64: 25, 128: 25, 512: 12, 2048: 6}
SEEDS = {64: 3, 128: 3, 512: 1, 2048: 1}  # initial weights
COMPARED = {64: 5, 128: 5, 512: 3, 2048: 1}  # last refreshes whose trustworthiness is computed
AVERAGED_VIEWS = VIEWS[1], VIEWS[3]
NEIGHBORS = 7
MAX_MOVED = 0.05
MIN_TRUST = 0.97
MAX_LOOP_DELAY_MS = 50.0
WORKER_POLL_SECONDS = 0.01
VIEWER_POLL_SECONDS = 0.025
LOOP_SLEEP_SECONDS = 0.005

Features = dict[str, np.ndarray]
Projections = dict[str, Projection]


def main() -> int:
    parser = argument_parser(__doc__, quick="64 and 512 filters, few refreshes")
    parser.add_argument("--method", choices=["tsne", "umap", "pca"], default="tsne")
    parser.add_argument(
        "--filters",
        type=int,
        nargs="+",
        choices=list(REFRESHES),
        help="sizes of the layer (default: all)",
    )
    options = parser.parse_args()
    sizes = options.filters or ([64, 512] if options.quick else list(REFRESHES))
    report = Report(
        f"Layouts of four views ({options.method})",
        ["filters", "first s", "refresh Hz", "moved %", *(f"trust: {view}" for view in VIEWS)],
    )
    worker = EmbeddingWorker()
    wait_until_warm(worker)
    for n_filters in progress(sizes, "Layouts", total=len(sizes)):
        measure_layouts(report, worker, options.method, n_filters, options.quick)
    worker.close()
    n_filters = sizes[-1]
    delay = asyncio.run(event_loop_delay(next(feature_snapshots(n_filters, 1)), options.method))
    report.check_at_most(f"loop delay p99, {n_filters} filters, ms", delay, MAX_LOOP_DELAY_MS)
    return report.finish(options.json, options.check)


def wait_until_warm(worker: EmbeddingWorker) -> None:
    """Wait until the worker has compiled everything, as soon after the start of a server."""
    features = np.random.default_rng(0).normal(size=(64, 16))
    worker.submit("warm-up", ProjectionJob(features, np.arange(64), "umap"))
    while not worker.poll():
        time.sleep(WORKER_POLL_SECONDS)


def measure_layouts(
    report: Report, worker: EmbeddingWorker, method: Method, n_filters: int, quick: bool
) -> None:
    """Add the row of a layer size, and its checks."""
    refreshes, seeds = (8, 1) if quick else (REFRESHES[n_filters], SEEDS[n_filters])
    chains = [run_chain(worker, method, n_filters, refreshes, seed) for seed in range(seeds)]
    first = float(np.median([chain.seconds[0] for chain in chains]))
    hz = float(1 / np.median([s for chain in chains for s in chain.seconds[1:]]))
    moved = max(float(np.mean(chain.moved)) for chain in chains)
    trust = {view: median_trust_ratio(chains, view, method, COMPARED[n_filters]) for view in VIEWS}
    report.add_row(n_filters, first, hz, 100 * moved, *trust.values())
    report.check_at_least(f"refresh of {n_filters} filters, Hz", hz, MIN_REFRESH_HZ[n_filters])
    report.check_at_most(f"moved per refresh, {n_filters} filters", moved, MAX_MOVED)
    for view, value in trust.items():
        report.check_at_least(
            f"trust after {refreshes} refreshes, {n_filters}, {view}", value, MIN_TRUST
        )


@dataclass
class LayoutChain:
    """Layouts, each started from the one before, and their input."""

    features: list[Features] = field(default_factory=list)
    projections: list[Projections] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    moved: list[float] = field(default_factory=list)  # in the view of coefficients


def run_chain(
    worker: EmbeddingWorker, method: Method, n_filters: int, refreshes: int, seed: int
) -> LayoutChain:
    """Train, and lay out all four views after every snapshot."""
    chain = LayoutChain()
    averages = {view: FilterFeatureMovingAverage() for view in AVERAGED_VIEWS}
    last: Projections = {}
    last_features: Features = {}
    for features in feature_snapshots(n_filters, refreshes + 1, seed):
        for view, average in averages.items():
            features[view] = average.add_and_average(np.arange(n_filters), features[view])
        start = time.perf_counter()
        new = project_views(worker, method, features, last, last_features)
        chain.seconds.append(time.perf_counter() - start)
        if last:
            chain.moved.append(mean_displacement(last[VIEWS[0]], new[VIEWS[0]]))
        chain.features.append(features)
        chain.projections.append(new)
        last, last_features = new, features
    return chain


def project_views(
    worker: EmbeddingWorker,
    method: Method,
    features: Features,
    last: Projections,
    last_features: Features,
) -> Projections:
    """Lay out all four views in the worker, each from its last layout."""
    for view, rows in features.items():
        change = mean_direction_change(last_features[view], rows) if last_features else 1.0
        job = ProjectionJob(rows, np.arange(len(rows)), method, last.get(view), change)
        worker.submit(view, job)
    done: Projections = {}
    while len(done) < len(features):
        for view, result in worker.poll():
            if isinstance(result, ProjectionFailure):
                raise RuntimeError(f"{view}: {result.reason}")
            done[str(view)] = result
        time.sleep(WORKER_POLL_SECONDS)
    return done


def is_regular(projection: Projection) -> np.ndarray:
    """Return a mask of the filters that are not degenerate, bool (n,)."""
    return projection.degenerate == ComparisonExclusion.NONE


def mean_displacement(before: Projection, after: Projection) -> float:
    """Return the mean displacement of the filters that are regular in both, in RMS radii."""
    both = is_regular(before) & is_regular(after)
    moved = np.linalg.norm(after.positions[both] - before.positions[both], axis=1).mean()
    centered = before.positions[both] - before.positions[both].mean(axis=0)
    return float(moved / np.sqrt((centered**2).sum(axis=1).mean()))


def median_trust_ratio(
    chains: list[LayoutChain], view: str, method: Method, compared: int
) -> float:
    """Return the median, over the last layouts, of warm / cold trustworthiness."""
    ratios = []
    for chain in chains:
        last = zip(chain.features[-compared:], chain.projections[-compared:], strict=True)
        ratios += [trust_ratio(features[view], warm[view], method) for features, warm in last]
    return float(np.median(ratios))


def trust_ratio(features: np.ndarray, warm: Projection, method: Method) -> float:
    """Return the trustworthiness of a layout relative to one without a start."""
    cold = project(ProjectionJob(features, warm.ids, method))
    regular = is_regular(warm)
    units = normalize_rows(features[regular])
    of_warm, of_cold = (
        trustworthiness(units, each.positions[regular], n_neighbors=NEIGHBORS)
        for each in (warm, cold)
    )
    return float(of_warm / of_cold)


async def event_loop_delay(features: Features, method: Method) -> float:
    """Return the 99th percentile of the event loop's delay during four cold layouts, in ms."""
    worker = EmbeddingWorker()
    first = next(iter(features.values()))[:64]
    worker.submit("warm-up", ProjectionJob(first, np.arange(64), method))
    while not worker.poll():
        await asyncio.sleep(WORKER_POLL_SECONDS)
    for view, rows in features.items():
        worker.submit(view, ProjectionJob(rows, np.arange(len(rows)), method))
    delays, done, last_poll = [], 0, 0.0
    while done < len(features):
        start = time.perf_counter()
        await asyncio.sleep(LOOP_SLEEP_SECONDS)
        delays.append(time.perf_counter() - start - LOOP_SLEEP_SECONDS)
        if start - last_poll > VIEWER_POLL_SECONDS:
            last_poll = start
            poll_start = time.perf_counter()
            done += len(worker.poll())
            delays.append(time.perf_counter() - poll_start)  # nothing else runs meanwhile
    worker.close()
    return 1000 * float(np.percentile(delays, 99))


if __name__ == "__main__":
    sys.exit(main())
