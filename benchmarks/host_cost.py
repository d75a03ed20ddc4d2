"""What monitoring costs the host, measured where there is hardly any arithmetic.

The network is the narrow one of `benchmarks.call_counts`. `benchmarks.overhead` adds these rows to
its table.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.alternatives import HandWrittenHooksTraining
from benchmarks.call_counts import (
    COUNT_COLUMNS,
    NARROW_CONVS,
    measure_counts,
    narrow_network,
    use_tiny_images,
)
from benchmarks.report import Report
from benchmarks.training_loops import MonitoredTraining, PlainTraining
from revacnn_lightning.telemetry import STATISTICS
from revacnn_lightning.telemetry.recording.single_hook_policy import PROOF

__all__ = ["measure_depth", "measure_narrow"]

MAX_NARROW = {"default": 1.09, "all": 1.18, "no viewer": 1.01}
MAX_MICROSECONDS = 20.0  # per convolution and batch, for the default statistics
DEPTHS = (10, 50, 200)
MAX_GROWTH = 1.1  # of the cost per convolution, from the first depth to the last one
STEPS = 6  # per block
SETTLING_STEPS = PROOF + 4  # before them, until only one weight has a hook


def extra_seconds(
    net: nn.Module,
    make: Callable[[nn.Module], PlainTraining],
    rounds: int,
    clock: Callable[[], float],
) -> tuple[float, float, float]:
    """Return the seconds of a plain step, what another one takes longer, and their ratio."""
    plain, other = PlainTraining(copy.deepcopy(net)), make(copy.deepcopy(net))
    try:
        use_tiny_images(plain)
        use_tiny_images(other)
        pairs = [(_seconds(plain, clock), _seconds(other, clock)) for _ in range(rounds + 1)][1:]
    finally:
        other.close()
    return (
        statistics.median(before for before, _ in pairs),
        statistics.median(after - before for before, after in pairs),
        statistics.median(after / before for before, after in pairs),
    )


def _seconds(training: PlainTraining, clock: Callable[[], float]) -> float:
    training.begin_block()
    for _ in range(SETTLING_STEPS):
        training.step()
    start = clock()
    for _ in range(STEPS):
        training.step()
    elapsed = clock() - start
    training.end_block()
    return elapsed / STEPS


def _without_viewer(net: nn.Module) -> PlainTraining:
    training = MonitoredTraining(net, clients=0)
    training.skip_first_batches()
    return training


def measure_narrow(report: Report, rounds: int, clock: Callable[[], float]) -> None:
    """Add the cost of the narrow network per convolution, and the counted figures."""
    torch.set_num_threads(1)
    variants: dict[str, Callable[[nn.Module], PlainTraining]] = {
        "default": MonitoredTraining,
        "all": lambda net: MonitoredTraining(net, statistics=STATISTICS),
        "no viewer": _without_viewer,
        "no viewer, first batches": lambda net: MonitoredTraining(net, clients=0),
        "hooks": HandWrittenHooksTraining,
    }
    for name, make in variants.items():
        plain, extra, ratio = extra_seconds(narrow_network(), make, rounds, clock)
        microseconds = 1e6 * extra / NARROW_CONVS
        report.add_row(
            f"narrow, {name}", 1, 1000 * plain, f"{ratio:.3f}", f"{microseconds:.1f} µs per conv"
        )
        if name in MAX_NARROW:
            report.check_at_most(f"narrow network, {name}", ratio, MAX_NARROW[name])
        if name == "default":
            report.check_at_most("narrow network, µs per conv", microseconds, MAX_MICROSECONDS)
    counted = Report("counted", COUNT_COLUMNS)
    measure_counts(counted)
    for row in counted.rows:
        report.add_note(
            f"narrow network, {row['statistics']}: {row['Python calls per conv']} Python calls and "
            f"{row['operations per conv']} operations per convolution and batch"
        )
    report.checks += counted.checks


def measure_depth(report: Report, rounds: int, clock: Callable[[], float]) -> None:
    """Check that a convolution costs as much in a deep network as in a shallow one.

    What a batch costs independently of the layers is in the first depth, so that the cost falls.
    """
    torch.set_num_threads(1)
    costs = {}
    for depth in DEPTHS:
        net = narrow_network(depth)
        plain, extra, ratio = extra_seconds(net, MonitoredTraining, rounds, clock)
        costs[depth] = extra / depth
        report.add_row(
            f"narrow, {depth} convolutions",
            1,
            1000 * plain,
            f"{ratio:.3f}",
            f"{1e6 * costs[depth]:.1f} µs per conv",
        )
    growth = costs[DEPTHS[-1]] / costs[DEPTHS[0]]
    report.check_at_most("growth of the cost per convolution", growth, MAX_GROWTH)
