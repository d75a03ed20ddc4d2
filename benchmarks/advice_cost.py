"""What prices cost a training step while a page shows them, and what all verdicts cost the server.

``python -m benchmarks.advice_cost [--models ...] [--clock cpu] [--json FILE] [--check] [--quick]``

All trainings are monitored, in one process, with a client that receives everything. A round times
one block of steps with prices shown and one without, in both orders in turn; the ratio of the two
is one observation, and the table shows medians. The columns:

- limited: with the default ``max_overhead``, as in a run of a user.
- unlimited: the statistic ``price`` at every batch.

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
from revacnn_lightning.protocol.requests import InspectPrices
from revacnn_lightning.runtime.run_options import RunOptions

MAX_SECONDS = 2.0  # of the server, for all verdicts
COMPUTATIONS = 5


class TrainingWithShownPrices(MonitoredTraining):
    """A monitored training that shows the prices of filters."""

    def __init__(self, net: nn.Module, **options: Any) -> None:
        self._is_shown = False
        super().__init__(net, **options)
        self._is_shown = True

    def begin_block(self) -> None:
        super().begin_block()
        if self._is_shown:
            collector: Any = self.session.inspections.by_request[InspectPrices]
            collector.select(InspectPrices())


def make_overhead_limited(net: nn.Module) -> MonitoredTraining:
    """Return a training with the default limit, whose sampling has adapted to it."""
    return adapt_to_overhead_limit(
        TrainingWithShownPrices(net, max_overhead=RunOptions.max_overhead)
    )


VARIANTS: dict[str, Callable[[nn.Module], MonitoredTraining]] = {
    "limited": make_overhead_limited,
    "unlimited": TrainingWithShownPrices,
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
    measure_shown_cost(report, VARIANTS, ["limited"], options)
    check_verdict_seconds(report)
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())
