"""What prices cost a training step while a page shows them, and what all verdicts cost the server.

``python -m benchmarks.advice_cost [--models ...] [--clock cpu] [--json FILE] [--check] [--quick]``

All trainings are monitored, in one process, with a client that receives everything. A round times
one block of steps with prices shown and one without, in both orders in turn; the ratio of the two
is one observation, and the table shows medians. The columns:

- limited: with the default ``max_overhead``, as in a run of a user.
- unlimited: the statistic ``price`` at every batch.

Measurements of prices may take 2 % of the time of a training, after half a second at the beginning.
Only the time of the training that shows prices counts, and the beginning is over before the first
block. A large network is measured in few of the steps; the checks add those 2 % to the median.

The verdicts are those of a ResNet-50: the seconds that one computation of all of them takes, which
the server of the page does in a thread beside its event loop.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torchvision
from torch import nn

from benchmarks.report import Report
from benchmarks.shown_cost import adapt_to_overhead_limit, measure_shown_cost, parse_options
from benchmarks.training_loops import MonitoredTraining
from revacnn_lightning import Run, attach
from revacnn_lightning.diagnostics.verdicts import MIN_BATCHES
from revacnn_lightning.protocol.rate_limit import TokenBucket
from revacnn_lightning.protocol.requests import InspectPrices
from revacnn_lightning.runtime.collector import Collector
from revacnn_lightning.runtime.filter_prices import BURST_SECONDS, TIME_SHARE
from revacnn_lightning.runtime.run_options import RunOptions

MAX_SECONDS = 2.0  # of the server, for all verdicts
COMPUTATIONS = 5


class BlockClock:
    """Returns the seconds that one training has spent in its blocks."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._began: float | None = None

    def __call__(self) -> float:
        return self._seconds + (0.0 if self._began is None else time.perf_counter() - self._began)

    def begin_block(self) -> None:
        self._began = time.perf_counter()

    def end_block(self) -> None:
        self._seconds, self._began = self(), None


class TrainingWithShownPrices(MonitoredTraining):
    """A monitored training that shows the prices of filters."""

    def __init__(self, net: nn.Module, **options: Any) -> None:
        self._clock: BlockClock | None = None
        super().__init__(net, **options)
        self._clock = BlockClock()
        collector: Any = self._collector
        collector._clock = self._clock
        collector._budget = TokenBucket(TIME_SHARE, BURST_SECONDS, self._clock)

    @property
    def _collector(self) -> Collector:
        return self.session.inspections.by_request[InspectPrices]

    def begin_block(self) -> None:
        super().begin_block()
        if self._clock is not None:
            self._clock.begin_block()
            self._collector.select(InspectPrices())

    def end_block(self) -> None:
        super().end_block()
        if self._clock is not None:
            self._clock.end_block()


def make_overhead_limited(net: nn.Module) -> MonitoredTraining:
    """Return a training with the default limit, whose sampling has adapted to it."""
    return adapt_to_overhead_limit(
        TrainingWithShownPrices(net, max_overhead=RunOptions.max_overhead)
    )


def make_unlimited(net: nn.Module) -> MonitoredTraining:
    """Return a training without a limit, after the measurements of the beginning."""
    return adapt_to_overhead_limit(TrainingWithShownPrices(net))


VARIANTS: dict[str, Callable[[nn.Module], MonitoredTraining]] = {
    "limited": make_overhead_limited,
    "unlimited": make_unlimited,
}


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
    report = Report("A step with prices shown / a monitored one without", ["model", *VARIANTS])
    measure_shown_cost(report, VARIANTS, ["limited"], options, rare_share=TIME_SHARE)
    check_verdict_seconds(report)
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())
