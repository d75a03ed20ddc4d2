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

import copy
import logging
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import torchvision
from torch import nn

from benchmarks.overhead import NETWORKS, ROUNDS, closing, step_ratios
from benchmarks.report import Report, argument_parser, progress_bar
from benchmarks.training_loops import MonitoredTraining
from revacnn_lightning import Run, attach
from revacnn_lightning.diagnostics.verdicts import MIN_BATCHES
from revacnn_lightning.protocol.requests import InspectPrices
from revacnn_lightning.runtime.run_options import RunOptions

MAX_RATIO = 1.05  # of a step
MAX_SECONDS = 2.0  # of the server, for all verdicts
MODELS = ("convnet", "mobilenet_v2", "resnet18")
GOVERNED_STEPS = 200  # until the intervals of sampling have adapted
COMPUTATIONS = 5


class ShownPrices(MonitoredTraining):
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


def make_limited(net: nn.Module) -> MonitoredTraining:
    """Return a training with the default limit, whose sampling has adapted to it."""
    training = ShownPrices(net, max_overhead=RunOptions.max_overhead)
    for _ in range(GOVERNED_STEPS // 20):
        training.begin_block()
        for _ in range(20):
            training.step()
        training.end_block()
    return training


VARIANTS: dict[str, Callable[[nn.Module], MonitoredTraining]] = {
    "limited": make_limited,
    "unlimited": ShownPrices,
}


def measure_model(report: Report, name: str, rounds: int, clock: Callable[[], float]) -> None:
    """Add the row of a model, and its check."""
    torch.manual_seed(0)
    net = NETWORKS[name]()
    ratios = {}
    with (
        closing(MonitoredTraining(copy.deepcopy(net))) as default,
        progress_bar(rounds * len(VARIANTS), name) as advance,
    ):
        for key, make in VARIANTS.items():
            with closing(make(copy.deepcopy(net))) as variant:
                ratios[key], _ = step_ratios(default, variant, rounds, clock, advance)
    report.add_row(name, *(f"{ratio:.3f}" for ratio in ratios.values()))
    report.check_at_most(f"{name}: step with prices / without", ratios["limited"], MAX_RATIO)


def measure_verdicts(report: Report) -> None:
    """Check how long all verdicts on a ResNet-50 take."""
    training = MonitoredTraining(torchvision.models.resnet50(num_classes=10), clients=0)
    training.images, training.labels = training.images[:2], training.labels[:2]
    training.begin_block()
    seconds = []
    try:
        with attach_while_training(training) as run:
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


def attach_while_training(training: MonitoredTraining) -> Run:
    """Attach to a training of this process, which replies between its steps."""
    with ThreadPoolExecutor(1) as pool:
        attaching = pool.submit(attach, training.file)
        while not attaching.done():
            training.step()
        return attaching.result()


def main() -> int:
    parser = argument_parser(__doc__, quick="the smallest model, few rounds")
    parser.add_argument("--models", nargs="+", choices=NETWORKS, default=list(MODELS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    options = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    torch.set_num_threads(options.threads)
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    report = Report("A step with prices shown / a monitored one without", ["model", *VARIANTS])
    for name in options.models[:1] if options.quick else options.models:
        measure_model(report, name, ROUNDS[name] // (3 if options.quick else 1), clock)
        report.save(options.json)
    measure_verdicts(report)
    report.add_note(
        f"median of interleaved pairs, {options.clock} clock, {options.threads} thread(s), load "
        f"average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
    )
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())
