"""Duration of an edit relative to a training step of the same model.

``python -m benchmarks.edit_time [--models ...] [--json FILE] [--check] [--quick]``

An edit is all of `Editor.apply`: the trace, the changes of tensors and of Adam's state, the
verifying forward passes and the journal. The trace runs one sample of the batch. `three_convs` is a
network whose forward takes next to no time, so what is left is the work of the edit itself; its
duration is checked in milliseconds.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import NamedTuple

import torch
import torchvision
from torch import nn

from benchmarks.report import Report, argument_parser, progress_bar
from benchmarks.steering_models import make_seeded, train_step
from revacnn_lightning import AddFilters, RemoveFilters
from revacnn_lightning.steering import Editor, ForwardProbe

SMALL = "three_convs"
MODELS = ["resnet50", "densenet121", "efficientnet_b0", SMALL]
MAX_RATIO = 0.15  # median edit / median step
MAX_SLOWEST_RATIO = 0.5  # slowest edit / median step
MAX_SMALL_MS = 60  # slowest edit of the small network
BATCH = 8
TIMED_STEPS = 5


class EditTimes(NamedTuple):
    """Durations in seconds."""

    steps: list[float]
    removals: list[float]
    additions: list[float]


def make_model(name: str) -> nn.Module:
    """Return a network of torchvision, or the small one."""
    if name != SMALL:
        return torchvision.models.get_model(name, weights=None)
    layers: list[nn.Module] = []
    for channels, filters in ((3, 16), (16, 32), (32, 32)):
        layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 1000))


def measure_edit_times(
    name: str, options: argparse.Namespace, convs: int, advance: Callable[[float], None]
) -> EditTimes:
    """Time a removal and an addition in randomly chosen convolutions, and steps in between."""
    model = make_seeded(partial(make_model, name), options.seed).to(options.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    x = torch.randn(BATCH, 3, options.pixels, options.pixels, device=options.device)
    y = torch.randint(1000, (BATCH,), device=options.device)
    editor = Editor(model, [optimizer])
    probe = ForwardProbe([partial(model, x[: options.samples])])
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    train_step(model, optimizer, x, y)
    editor.channel_groups(probe)  # before the first edit, as in a run that shows its structure
    times = EditTimes([], [], [])
    for layer in random.Random(options.seed).sample(names, min(convs, len(names))):
        times.removals.append(editor.apply(RemoveFilters(layer, [0]), probe).seconds)
        times.additions.append(editor.apply(AddFilters(layer), probe).seconds)
        advance(2)
        if len(times.steps) < TIMED_STEPS:
            start = perf_counter()
            train_step(model, optimizer, x, y)
            if x.is_cuda:
                torch.cuda.synchronize()
            times.steps.append(perf_counter() - start)
    return times


def main() -> int:
    parser = argument_parser(__doc__, quick="three convolutions per model")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--pixels", type=int, default=224)
    parser.add_argument("--convs", type=int, default=20, help="per model, with two edits each")
    parser.add_argument("--samples", type=int, default=1, help="of the batch, for the trace")
    parser.add_argument("--device", default="cpu", help="of the networks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    convs = 3 if options.quick else options.convs
    report = Report(
        f"One edit / one training step (batch {BATCH}, {options.pixels} px, fp32)",
        ["model", "step ms", "remove ms", "add ms", "slowest ms", "edit / step"],
    )
    median = statistics.median
    with progress_bar(2 * convs * len(options.models)) as advance:
        for name in options.models:
            times = measure_edit_times(name, options, convs, advance)
            edits = times.removals + times.additions
            step, ratio = median(times.steps), median(edits) / median(times.steps)
            seconds = (step, median(times.removals), median(times.additions), max(edits))
            report.add_row(name, *(1000 * each for each in seconds), ratio)
            if name == SMALL:
                report.check_at_most(f"{name}: slowest edit, ms", 1000 * max(edits), MAX_SMALL_MS)
                continue
            report.check_at_most(f"{name}: median edit / step", ratio, MAX_RATIO)
            slowest = max(edits) / step
            report.check_at_most(f"{name}: slowest edit / step", slowest, MAX_SLOWEST_RATIO)
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())
