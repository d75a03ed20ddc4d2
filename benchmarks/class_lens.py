"""What showing classes costs a training step, and that it costs nothing once nobody does.

``python -m benchmarks.class_lens [--models ...] [--clock cpu] [--json FILE] [--check] [--quick]``

All trainings are monitored, in one process, with a client that receives everything. A round times
one block of steps with classes shown and one without, in both orders in turn; the ratio of the two
is one observation, and the table shows medians. The columns:

- layer: the class matrix of the last convolution, as the panel of an opened layer shows it.
- 4 layers: as many as a run keeps at a time.
- class: how each filter of the network answers to one class, as the network view colors them.
- both: the last convolution and one class, at every batch.
- limited: both, with the default ``max_overhead``, as in a run of a user.
- off again: both were shown, and nobody shows them any more. Its operations and Python calls are
  counted, too, and must be those of a training that has never shown classes.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from benchmarks.call_counts import (
    SETTLED_STEPS,
    TRIES,
    StepCounts,
    count_calls_and_operations,
    narrow_network,
    use_tiny_images,
)
from benchmarks.report import Report
from benchmarks.shown_cost import adapt_to_overhead_limit, measure_shown_cost, parse_options
from benchmarks.training_loops import MonitoredTraining
from revacnn_lightning.protocol.requests import InspectClass, InspectClasses
from revacnn_lightning.runtime import class_lens
from revacnn_lightning.runtime.run_options import RunOptions


class TrainingWithShownClasses(MonitoredTraining):
    """A monitored training that shows classes.

    Args:
        net: the network to train.
        layers: the number of opened layers, the last ones.
        has_class: whether a class is shown in the network view.
        options: of `MonitoredTraining`.
    """

    def __init__(
        self, net: nn.Module, layers: int = 1, *, has_class: bool = False, **options: Any
    ) -> None:
        self._is_shown = False
        super().__init__(net, **options)
        self._opened = self.session.recorder.layers[-layers:] if layers else []
        self._has_class = has_class
        self._is_shown = True

    def begin_block(self) -> None:
        super().begin_block()
        if self._is_shown:
            self._select()

    def _select(self) -> None:
        collector: Any = self.session.inspections.by_request[InspectClasses]
        for layer in self._opened:
            collector.select(InspectClasses(layer))
        if self._has_class:
            collector.select(InspectClass(0))

    def stop_showing(self) -> None:
        """Let the selections expire."""
        self._is_shown = False
        self.begin_block()
        time.sleep(class_lens.SELECTION_SECONDS)
        self.step()
        self.end_block()
        assert not self.session.recorder.pooled_maps.layers


def make_training_after_classes(net: nn.Module) -> MonitoredTraining:
    """Return a training that shows classes no longer."""
    training = TrainingWithShownClasses(net, has_class=True)
    training.begin_block()
    for _ in range(TRIES):
        training.step()
    training.end_block()
    training.stop_showing()
    return training


def make_overhead_limited(net: nn.Module) -> MonitoredTraining:
    """Return a training with the default limit, whose sampling has adapted to it."""
    limit = RunOptions.max_overhead
    return adapt_to_overhead_limit(
        TrainingWithShownClasses(net, has_class=True, max_overhead=limit)
    )


VARIANTS: dict[str, Callable[[nn.Module], MonitoredTraining]] = {
    "layer": TrainingWithShownClasses,
    "4 layers": lambda net: TrainingWithShownClasses(net, class_lens.MAX_LAYERS),
    "class": lambda net: TrainingWithShownClasses(net, 0, has_class=True),
    "both": lambda net: TrainingWithShownClasses(net, has_class=True),
    "limited": make_overhead_limited,
    "off again": make_training_after_classes,
}
LIMITED = ("layer", "limited")  # what must not exceed `MAX_RATIO`


def step_counts_of(training: MonitoredTraining) -> StepCounts:
    """Return what a step does; the smallest counts are those without a heartbeat."""
    use_tiny_images(training)
    training.begin_block()
    training.callback._continuation.step = 10**6  # where the history samples a batch now and then
    for _ in range(SETTLED_STEPS):
        training.step()
    counts = [count_calls_and_operations(training.step) for _ in range(TRIES)]
    training.end_block()
    return StepCounts(min(one.calls for one in counts), min(one.operations for one in counts))


def check_counts_after_classes(report: Report) -> None:
    """Check that a training that has shown classes does what any other does."""
    net = narrow_network()
    made: Sequence[MonitoredTraining] = (
        MonitoredTraining(copy.deepcopy(net)), make_training_after_classes(copy.deepcopy(net))
    )  # fmt: skip
    try:
        never, ended = (step_counts_of(training) for training in made)
    finally:
        for training in made:
            training.close()
    report.check_at_most("off again: operations more", ended.operations - never.operations, 0)
    report.check_at_most("off again: Python calls more", ended.calls - never.calls, 0)


def main() -> int:
    options = parse_options(__doc__)
    report = Report("A step with classes shown / a monitored one without", ["model", *VARIANTS])
    measure_shown_cost(report, VARIANTS, LIMITED, options)
    check_counts_after_classes(report)
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())
