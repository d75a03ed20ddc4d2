"""What the callback costs in memory: each figure is measured in a process of its own.

``python -m benchmarks.memory [--models ...] [--json FILE] [--check] [--quick]``
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from benchmarks.report import Report
from benchmarks.training_loops import MODELS, Ours, Plain

__all__ = ["measure_memory"]


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def current_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def train_for_memory(name: str, watched: bool) -> None:
    """In a process of its own: print the peak after some steps."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = MODELS[name]()
    variant = Ours(net, readers=1) if watched else Plain(net)
    variant.begin()
    for _ in range(5):
        variant.step()
    print(peak_megabytes())
    variant.close()


def train_for_growth(batches: int) -> None:
    """In a process of its own: print the memory after a fifth of the batches, and after all."""
    torch.set_num_threads(1)
    convs = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 10, 3)]
    ours = Ours(nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten()), readers=1)
    ours.images, ours.labels = torch.randn(2, 3, 8, 8), torch.zeros(2, dtype=torch.long)
    ours.begin()
    for index in range(batches):
        ours.step()
        if index + 1 in (batches // 5, batches):
            print(current_megabytes())
    ours.close()


def measure_memory(report: Report, models: list[str], batches: int) -> None:
    """Peak with and without us, and growth."""
    for name in models:
        peaks = {
            watched: statistics.median(
                float(_elsewhere("--memory", name, *(["--watched"] if watched else [])))
                for _ in range(3)
            )
            for watched in (False, True)
        }
        share = peaks[True] / peaks[False] - 1
        report.check(
            f"memory, {name}: share of the peak of {peaks[False]:.0f} MB", share, "≤ 0.01",
            share <= 0.01,
        )  # fmt: skip
    early, late = map(float, _elsewhere("--growth", str(batches)).split())
    report.check(
        f"memory: growth over the last 4/5 of {batches} batches (MB)",
        late - early,
        "≤ 0.5",
        late - early <= 0.5,
    )


def _elsewhere(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--check", action="store_true", help="exit 1 when a figure is missed")
    parser.add_argument("--quick", action="store_true", help="one small model, fewer batches")
    for hidden in ("--memory", "--growth"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--watched", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        train_for_memory(options.memory, options.watched)
        return 0
    if options.growth:
        train_for_growth(int(options.growth))
        return 0
    report = Report("Memory", ["figure"])
    models = ["convnet"] if options.quick else options.models
    measure_memory(report, models, 1_000 if options.quick else 10_000)
    exit_code: int = report.finish(options.json, options.check)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
