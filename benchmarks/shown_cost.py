"""What a step takes longer while a page shows something: for `class_lens` and `advice_cost`."""

from __future__ import annotations

import argparse
import copy
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from benchmarks.overhead import NETWORKS, ROUNDS, closing_training, step_ratios
from benchmarks.report import Report, argument_parser, progress_bar
from benchmarks.training_loops import MonitoredTraining

__all__ = [
    "GOVERNED_STEPS",
    "MAX_RATIO",
    "adapt_to_overhead_limit",
    "measure_shown_cost",
    "parse_options",
]

MAX_RATIO = 1.05  # of what a page shows at a time
MODELS = ("convnet", "mobilenet_v2", "resnet18")
GOVERNED_STEPS = 200  # until the intervals of sampling have adapted

Variants = Mapping[str, Callable[[nn.Module], MonitoredTraining]]


def parse_options(description: str | None, *, has_clock: bool = True) -> argparse.Namespace:
    """Return the options of a benchmark, with its ``--models``, ``--threads`` and ``--clock``."""
    parser = argument_parser(description, quick="the smallest model, few rounds")
    parser.add_argument("--models", nargs="+", choices=NETWORKS, default=list(MODELS))
    parser.add_argument("--threads", type=int, default=1)
    if has_clock:
        parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    return parser.parse_args()


def adapt_to_overhead_limit(training: MonitoredTraining) -> MonitoredTraining:
    """Return a training with a limit of its overhead, whose sampling has adapted to it."""
    training.begin_block()
    for _ in range(GOVERNED_STEPS):
        training.step()
    training.end_block()
    return training


def measure_shown_cost(
    report: Report,
    variants: Variants,
    limited: Sequence[str],
    options: argparse.Namespace,
) -> None:
    """Add a row for each model: steps of variants, relative to a monitored one that shows nothing.

    Args:
        report: whose columns are the model and the variants.
        variants: make a training of a network.
        limited: those that must not exceed `MAX_RATIO`.
        options: see `parse_options`.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    torch.set_num_threads(options.threads)
    for name in options.models[:1] if options.quick else options.models:
        ratios = _ratios(name, variants, options)
        report.add_row(name, *(f"{ratio:.3f}" for ratio in ratios.values()))
        for key in limited:
            report.check_at_most(f"{name}, {key}: step / without", ratios[key], MAX_RATIO)
        report.save(options.json)
    report.add_note(
        f"median of interleaved pairs, {options.clock} clock, {options.threads} thread(s), load "
        f"average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
    )


def _ratios(name: str, variants: Variants, options: argparse.Namespace) -> dict[str, float]:
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    rounds = ROUNDS[name] // (3 if options.quick else 1)
    torch.manual_seed(0)
    net = NETWORKS[name]()
    ratios = {}
    with (
        closing_training(MonitoredTraining(copy.deepcopy(net))) as default,
        progress_bar(rounds * len(variants), name) as advance,
    ):
        for key, make in variants.items():
            with closing_training(make(copy.deepcopy(net))) as variant:
                ratios[key], _ = step_ratios(default, variant, rounds, clock, advance)
    return ratios
