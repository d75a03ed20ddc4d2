"""What prices cost a training step while a page shows them, and what all verdicts cost the server.

``python -m benchmarks.advice_cost [--models ...] [--json FILE] [--check] [--quick]``

A training is compared with itself: it is monitored by a client that receives everything, and a
round has one block of steps while prices are shown and one while they are not, in both orders in
turn. The table shows how much longer a step takes with prices shown. It is the median of the steps
that sample the statistic ``price`` and of those that do not, weighted by how many there are, and
the share of the time that measurements of prices took. In brackets stand the steps that sample it,
and their share. The columns:

- limited: with the default ``max_overhead``, as in a run of a user.
- unlimited: the statistic ``price`` at every batch.

The verdicts are those of a ResNet-50: the seconds that one computation of all of them takes, which
the server of the page does in a thread beside its event loop.
"""

from __future__ import annotations

import copy
import logging
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
import torchvision
from torch import nn

from benchmarks.overhead import NETWORKS, closing_training
from benchmarks.report import Report, progress_bar
from benchmarks.shown_cost import MAX_RATIO, MODELS, adapt_to_overhead_limit, parse_options
from benchmarks.training_loops import MonitoredTraining
from revacnn_lightning import Run, attach
from revacnn_lightning.diagnostics.verdicts import MIN_BATCHES
from revacnn_lightning.protocol.messages import Message
from revacnn_lightning.protocol.rate_limit import TokenBucket
from revacnn_lightning.protocol.requests import InspectPrices
from revacnn_lightning.runtime.batch import BatchContext
from revacnn_lightning.runtime.collector import Collector
from revacnn_lightning.runtime.filter_prices import BURST_SECONDS, SELECTION_SECONDS, TIME_SHARE
from revacnn_lightning.runtime.run_options import RunOptions

MAX_SECONDS = 2.0  # of the server, for all verdicts
COMPUTATIONS = 5
# The speed of a machine changes from second to second, so blocks are short and many.
BLOCK = 4  # timed steps
ROUNDS = dict(zip(MODELS, (200, 80, 30), strict=True))
UNLIMITED_SHARE = 4  # that has one of so many rounds
SETTLING_STEPS = 2  # before a block
REQUEST_INTERVAL = 4  # steps
BEGINNING_STEPS = 10  # in which more may be measured than later


class SkippableClock:
    """A clock that can be put forward, and that can stand still."""

    def __init__(self) -> None:
        self.is_running = True
        self._seconds = 0.0
        self._last = time.perf_counter()

    def __call__(self) -> float:
        now = time.perf_counter()
        self._seconds += (now - self._last) * self.is_running
        self._last = now
        return self._seconds

    def skip(self, seconds: float) -> None:
        """Put the clock forward."""
        self._seconds += seconds


class TrainingWithPrices(MonitoredTraining):
    """A monitored training that shows the prices of filters, or does not.

    Attributes:
        shown_time: returns the seconds for which prices have been shown.
        measuring_seconds: how long of it prices have been measured.
        samples_price: whether the last step has sampled the statistic.
    """

    def __init__(self, net: nn.Module, **options: Any) -> None:
        self._is_shown = False
        super().__init__(net, **options)
        self._clock, self.shown_time = SkippableClock(), SkippableClock()
        self.measuring_seconds = 0.0
        collector: Any = self._collector
        self._collect = collector.collect
        collector.collect = self._collect_timed
        collector._clock = self._clock
        # Measurements may take a share of the time in which prices are shown.
        collector._budget = TokenBucket(TIME_SHARE, BURST_SECONDS, self.shown_time)
        self.show(True)

    @property
    def _collector(self) -> Collector:
        return self.session.inspections.by_request[InspectPrices]

    @property
    def samples_price(self) -> bool:
        return "price" in self.session.recorder._batch.statistics

    def _collect_timed(self, context: BatchContext) -> Sequence[Message]:
        start = time.perf_counter()
        try:
            return self._collect(context)
        finally:
            self.measuring_seconds += time.perf_counter() - start

    def show(self, is_shown: bool) -> None:
        """Show prices from now on, or do not."""
        self.shown_time()
        self.shown_time.is_running = self._is_shown = is_shown
        self._clock.skip(0.0 if is_shown else SELECTION_SECONDS)

    def step(self) -> None:
        if self._is_shown and self.index % REQUEST_INTERVAL == 0:  # as a page does
            self._collector.select(InspectPrices())
        super().step()


def make_overhead_limited(net: nn.Module) -> TrainingWithPrices:
    """Return a training with the default limit, whose sampling has adapted to it."""
    training = TrainingWithPrices(net, max_overhead=RunOptions.max_overhead)
    adapt_to_overhead_limit(training)
    return training


def make_unlimited(net: nn.Module) -> TrainingWithPrices:
    """Return a training without a limit, after the measurements of the beginning."""
    training = TrainingWithPrices(net)
    training.begin_block()
    for _ in range(BEGINNING_STEPS):
        training.step()
    training.end_block()
    return training


VARIANTS: dict[str, Callable[[nn.Module], TrainingWithPrices]] = {
    "limited": make_overhead_limited,
    "unlimited": make_unlimited,
}
LIMITED = "limited"  # must not exceed `MAX_RATIO`


class ShownCost(NamedTuple):
    """What showing prices costs.

    Attributes:
        ratio: a step, relative to one while prices are not shown.
        sampling_ratio: a step that samples the statistic; NaN if none has.
        sampling_share: the share of these steps.
    """

    ratio: float
    sampling_ratio: float
    sampling_share: float

    def __str__(self) -> str:
        return f"{self.ratio:.3f} ({self.sampling_ratio:.3f}, {self.sampling_share:.0%})"


def measure_shown_cost(
    training: TrainingWithPrices, rounds: int, advance: Callable[[float], None]
) -> ShownCost:
    """Measure one training with prices shown and without, in turns."""
    hidden: list[float] = []
    shown: dict[bool, list[float]] = {False: [], True: []}  # by whether the step samples the price
    training.begin_block()
    shown_since, measured_before = training.shown_time(), training.measuring_seconds
    for index in range(rounds):
        for is_shown in (True, False) if index % 2 else (False, True):
            training.show(is_shown)
            for _ in range(SETTLING_STEPS):
                training.step()
            for _ in range(BLOCK):
                seconds = time_step(training)
                (shown[training.samples_price] if is_shown else hidden).append(seconds)
        advance(1)
    measuring = training.measuring_seconds - measured_before
    measuring_share = measuring / (training.shown_time() - shown_since)
    training.end_block()
    medians = {key: statistics.median(times) for key, times in shown.items() if times}
    count = sum(map(len, shown.values()))
    mean = sum(medians[key] * len(shown[key]) for key in medians) / count
    base = statistics.median(hidden)
    return ShownCost(
        mean / base / (1 - measuring_share),
        medians.get(True, math.nan) / base,
        len(shown[True]) / count,
    )


def time_step(training: TrainingWithPrices) -> float:
    """Return the seconds that a step takes, without the measurements of prices."""
    start, measured = time.perf_counter(), training.measuring_seconds
    training.step()
    return time.perf_counter() - start - (training.measuring_seconds - measured)


def measure_model(report: Report, name: str, rounds: int) -> None:
    """Add the row of a model, and its check."""
    torch.manual_seed(0)
    net = NETWORKS[name]()
    costs = {}
    counts = {key: rounds if key == LIMITED else rounds // UNLIMITED_SHARE for key in VARIANTS}
    with progress_bar(sum(counts.values()), name) as advance:
        for key, make in VARIANTS.items():
            with closing_training(make(copy.deepcopy(net))) as training:
                costs[key] = measure_shown_cost(training, counts[key], advance)
    report.add_row(name, *map(str, costs.values()))
    report.check_at_most(f"{name}, limited: step / without", costs[LIMITED].ratio, MAX_RATIO)


def check_verdict_seconds(report: Report) -> None:
    """Check how long all verdicts on a ResNet-50 take."""
    training = MonitoredTraining(torchvision.models.resnet50(num_classes=10), clients=0)
    training.images, training.labels = training.images[:2], training.labels[:2]
    training.begin_block()
    seconds = []
    try:
        with attach_in_process(training) as run:
            for _ in range(MIN_BATCHES + COMPUTATIONS):
                training.step()
                run.poll()
                start = time.perf_counter()
                found = run.verdicts()
                seconds.append(time.perf_counter() - start)
    finally:
        training.end_block()
        training.close()
    known = sum(one.is_known for one in found)
    report.add_note(f"ResNet-50: {len(found)} verdicts and pending ones, {known} known")
    slowest = max(seconds[-COMPUTATIONS:])
    report.check_at_most("all verdicts on ResNet-50 (s)", slowest, MAX_SECONDS)


def attach_in_process(training: MonitoredTraining) -> Run:
    """Attach to a training of this process, which replies between its steps."""
    with ThreadPoolExecutor(1) as pool:
        attaching = pool.submit(attach, training.file)
        while not attaching.done():
            training.step()
        return attaching.result()


def main() -> int:
    options = parse_options(__doc__, has_clock=False)
    report = Report("A step with prices shown / one without", ["model", *VARIANTS])
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    torch.set_num_threads(options.threads)
    for name in options.models[:1] if options.quick else options.models:
        measure_model(report, name, ROUNDS.get(name, 40) // (4 if options.quick else 1))
        report.save(options.json)
    report.add_note(
        f"interleaved blocks of {BLOCK} steps, {options.threads} thread(s), load average "
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
    )
    check_verdict_seconds(report)
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())
