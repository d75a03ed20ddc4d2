"""What a monitored step does besides the training, counted: exact on every machine.

``python -m benchmarks.call_counts [--check]``

The *narrow network* has hardly any arithmetic: 50 convolutions of 8 filters, and 2 images of 8×8
pixels. What it takes longer is what the host does: Python functions that are called, and operations
that are dispatched. A training on a GPU waits for the same.
"""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.report import Report, argument_parser
from benchmarks.training_loops import MonitoredTraining, PlainTraining
from revacnn_lightning.telemetry import STATISTICS

__all__ = [
    "COUNT_COLUMNS",
    "LIMITS",
    "NARROW_CONVS",
    "VARIANTS",
    "StepCounts",
    "extra_step_counts",
    "narrow_network",
    "use_tiny_images",
]

NARROW_CONVS = 50
SETTLED_STEPS = 30  # until only some batches are timed
# The smallest counts are those without a heartbeat, a timed batch, ... A busy machine has these in
# most steps.
TRIES = 12


@dataclass(frozen=True)
class StepCounts:
    """What a step does.

    Attributes:
        calls: Python functions that are called.
        operations: operations that are dispatched.
    """

    calls: int
    operations: int


# Of the narrow network, in all: per convolution 15 or 19 calls, and some operations for all
# together.
LIMITS = {
    "default": StepCounts(15 * NARROW_CONVS, 20),
    "all": StepCounts(19 * NARROW_CONVS, 50),
    "no viewer": StepCounts(3 * NARROW_CONVS, 0),
}
COUNT_COLUMNS = ("statistics", "Python calls per conv", "operations per conv")
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "all": {"statistics": STATISTICS},
    "no viewer": {"clients": 0},
}


def narrow_network(conv_count: int = NARROW_CONVS, width: int = 8) -> nn.Module:
    """Return a chain of narrow convolutions with batch norms and ReLUs."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1)]
    for _ in range(conv_count - 1):
        conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        layers += [nn.BatchNorm2d(width), nn.ReLU(), conv]
    head = [nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *head, nn.Linear(width, 10))


def use_tiny_images(training: PlainTraining) -> None:
    """Train on 2 images of 8×8 pixels from now on."""
    training.images = training.images[:2, :, :8, :8].contiguous()
    training.labels = training.labels[:2]


def extra_step_counts(net: nn.Module, **options: Any) -> StepCounts:
    """Return what a step of a monitored training does more than a plain one.

    Args:
        net: the network, which is not changed.
        options: of `MonitoredTraining`.
    """
    plain = PlainTraining(copy.deepcopy(net))
    use_tiny_images(plain)
    for _ in range(TRIES):
        plain.step()
    monitored = MonitoredTraining(copy.deepcopy(net), **options)
    try:
        use_tiny_images(monitored)
        monitored.begin_block()
        monitored.skip_first_batches()
        for _ in range(SETTLED_STEPS):
            monitored.step()
        expected, counts = (
            count_calls_and_operations(plain.step),
            [count_calls_and_operations(monitored.step) for _ in range(TRIES)],
        )
        monitored.end_block()
    finally:
        monitored.close()
    return StepCounts(
        min(each.calls for each in counts) - expected.calls,
        min(each.operations for each in counts) - expected.operations,
    )


def count_calls_and_operations(step: Callable[[], None]) -> StepCounts:
    """Count what two calls of a function do: Python calls in one, operations in the other."""
    with count_python_calls() as calls:
        step()
    with OperationCounter() as operations:
        step()
    return StepCounts(calls[0], operations.count)


@contextmanager
def count_python_calls() -> Iterator[list[int]]:
    """Count the Python functions that are called in this context."""
    calls = [0]

    def on_event(frame: FrameType, event: str, argument: Any) -> None:
        calls[0] += event == "call"

    before = sys.getprofile()
    sys.setprofile(on_event)
    try:
        yield calls
    finally:
        sys.setprofile(before)


class OperationCounter(TorchDispatchMode):
    """Counts the operations that are dispatched in its context."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.count += 1
        return function(*args, **(kwargs or {}))


def measure_counts(report: Report) -> None:
    """Add the counts of the narrow network, and compare them with their limits."""
    for name, options in VARIANTS.items():
        counts, limit = extra_step_counts(narrow_network(), **options), LIMITS[name]
        report.add_row(
            name, f"{counts.calls / NARROW_CONVS:.1f}", f"{counts.operations / NARROW_CONVS:.2f}"
        )
        report.check_at_most(f"Python calls, {name}", counts.calls, limit.calls)
        report.check_at_most(f"operations, {name}", counts.operations, limit.operations)


def main() -> int:
    options = argument_parser(__doc__, quick="the same").parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    report = Report("A monitored step beside a plain one, counted", COUNT_COLUMNS)
    measure_counts(report)
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())
