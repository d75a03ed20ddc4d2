"""What prices cost a training step while a page shows them, and what all verdicts cost the server.

``python -m benchmarks.advice_cost [--models ...] [--clock cpu] [--json FILE] [--check] [--quick]``

A training is compared with itself: it is monitored by a client that receives everything, and a
round has one block of steps while prices are shown and one while they are not, in both orders in
turn. The table shows all blocks with prices, relative to all blocks without, and in brackets the
median of the rounds, in most of which no price is measured and none is sampled. The columns:

- limited: with the default ``max_overhead``, as in a run of a user.
- unlimited: the statistic ``price`` at every batch.

The verdicts are those of a ResNet-50: the seconds that one computation of all of them takes, which
the server of the page does in a thread beside its event loop.
"""

from __future__ import annotations

import copy
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
import torchvision
from torch import nn

from benchmarks.overhead import NETWORKS, Clock, closing_training
from benchmarks.report import Report, progress_bar
from benchmarks.shown_cost import MAX_RATIO, MODELS, adapt_to_overhead_limit, parse_options
from benchmarks.training_loops import MonitoredTraining
from revacnn_lightning import Run, attach
from revacnn_lightning.diagnostics.verdicts import MIN_BATCHES
from revacnn_lightning.protocol.rate_limit import TokenBucket
from revacnn_lightning.protocol.requests import InspectPrices
from revacnn_lightning.runtime.collector import Collector
from revacnn_lightning.runtime.filter_prices import BURST_SECONDS, SELECTION_SECONDS, TIME_SHARE
from revacnn_lightning.runtime.run_options import RunOptions

MAX_SECONDS = 2.0  # of the server, for all verdicts
COMPUTATIONS = 5
# The speed of a machine changes from second to second, so blocks are short and many.
BLOCK = 4  # timed steps
ROUNDS = dict(zip(MODELS, (100, 80, 40), strict=True))
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


class PausableBudget(TokenBucket):
    """The time that measurements may take, none of it while it is paused."""

    is_paused = False

    @property
    def is_empty(self) -> bool:
        return self.is_paused or super().is_empty


class TrainingWithPrices(MonitoredTraining):
    """A monitored training that shows the prices of filters, or does not."""

    def __init__(self, net: nn.Module, **options: Any) -> None:
        self.is_shown = False
        super().__init__(net, **options)
        self._clock, self._shown_time = SkippableClock(), SkippableClock()
        collector: Any = self._collector
        collector._clock = self._clock
        # Measurements may take a share of the time of the blocks in which prices are shown.
        self._budget = PausableBudget(TIME_SHARE, BURST_SECONDS, self._shown_time)
        collector._budget = self._budget
        self.show(True)
        self.measure()

    @property
    def _collector(self) -> Collector:
        return self.session.inspections.by_request[InspectPrices]

    def show(self, is_shown: bool) -> None:
        """Show prices from now on, or do not, and measure none before `measure`."""
        self._shown_time()
        self._shown_time.is_running, self._budget.is_paused = False, True
        self.is_shown = is_shown
        self._clock.skip(0.0 if is_shown else SELECTION_SECONDS)

    def measure(self) -> None:
        """Let prices be measured, if they are shown."""
        self._shown_time()
        self._shown_time.is_running, self._budget.is_paused = self.is_shown, False

    def step(self) -> None:
        if self.is_shown and self.index % REQUEST_INTERVAL == 0:  # as a page does
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
    """Steps with prices shown, relative to steps without: of all rounds, and of the median one."""

    ratio: float
    median: float


def shown_cost(
    training: TrainingWithPrices, rounds: int, clock: Clock, advance: Callable[[float], None]
) -> ShownCost:
    """Measure one training with prices shown and without, in turns."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    training.begin_block()
    for index in range(rounds):
        for is_shown in (True, False) if index % 2 else (False, True):
            training.show(is_shown)
            for _ in range(SETTLING_STEPS):
                training.step()
            training.measure()
            start = clock()
            for _ in range(BLOCK):
                training.step()
            seconds[is_shown].append(clock() - start)
        advance(1)
    training.end_block()
    ratios = [shown / hidden for shown, hidden in zip(seconds[True], seconds[False], strict=True)]
    return ShownCost(sum(seconds[True]) / sum(seconds[False]), statistics.median(ratios))


def measure_model(report: Report, name: str, rounds: int, clock: Clock) -> None:
    """Add the row of a model, and its check."""
    torch.manual_seed(0)
    net = NETWORKS[name]()
    costs = {}
    counts = {key: rounds if key == LIMITED else rounds // UNLIMITED_SHARE for key in VARIANTS}
    with progress_bar(sum(counts.values()), name) as advance:
        for key, make in VARIANTS.items():
            with closing_training(make(copy.deepcopy(net))) as training:
                costs[key] = shown_cost(training, counts[key], clock, advance)
    report.add_row(name, *(f"{cost.ratio:.3f} ({cost.median:.3f})" for cost in costs.values()))
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
    options = parse_options(__doc__)
    report = Report("A step with prices shown / one without", ["model", *VARIANTS])
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    torch.set_num_threads(options.threads)
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    for name in options.models[:1] if options.quick else options.models:
        measure_model(report, name, ROUNDS.get(name, 40) // (4 if options.quick else 1), clock)
        report.save(options.json)
    report.add_note(
        f"interleaved blocks of {BLOCK} steps, {options.clock} clock, {options.threads} thread(s), "
        f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
    )
    check_verdict_seconds(report)
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())
