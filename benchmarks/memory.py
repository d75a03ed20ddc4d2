"""Memory of a training with and without monitoring. Each value comes from its own process.

``python -m benchmarks.memory [--models ...] [--json FILE] [--check] [--quick]``
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from benchmarks.report import Report, argument_parser
from benchmarks.training_loops import MODELS, MonitoredTraining, PlainTraining

__all__ = ["measure_memory"]

MAX_PEAK_SHARE = 0.01  # of the peak memory without monitoring
MAX_GROWTH = 0.5  # MB
PROCESSES = 3  # per peak; the median counts


def memory_megabytes(field: str) -> float:
    """Return a field of ``/proc/self/status``: "VmHWM" is the peak, "VmRSS" the current memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) / 1024
    raise KeyError(field)


def print_peak(name: str, monitored: bool) -> None:
    """Train a few steps and print the peak memory. Runs in its own process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = MODELS[name]()
    training = MonitoredTraining(net) if monitored else PlainTraining(net)
    training.begin_block()
    for _ in range(5):
        training.step()
    print(memory_megabytes("VmHWM"))
    training.close()


def print_growth(batch_count: int) -> None:
    """Print the memory after 1/5 of the batches and after all. Runs in its own process."""
    torch.set_num_threads(1)
    convs = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 10, 3)]
    training = MonitoredTraining(nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    training.images, training.labels = torch.randn(2, 3, 8, 8), torch.zeros(2, dtype=torch.long)
    training.begin_block()
    for index in range(batch_count):
        training.step()
        if index + 1 in (batch_count // 5, batch_count):
            print(memory_megabytes("VmRSS"))
    training.close()


def measure_memory(report: Report, models: list[str], batches: int) -> None:
    """Check how much monitoring adds to the peak memory, and that memory does not grow."""
    for name in models:
        plain, monitored = (
            statistics.median(
                float(_run_process("--peak", name, *options)) for _ in range(PROCESSES)
            )
            for options in ([], ["--monitored"])
        )
        report.check_at_most(
            f"memory, {name}: share of the peak of {plain:.0f} MB",
            monitored / plain - 1,
            MAX_PEAK_SHARE,
        )
    early, late = map(float, _run_process("--growth", str(batches)).split())
    report.check_at_most(
        f"memory: growth over the last 4/5 of {batches} batches (MB)", late - early, MAX_GROWTH
    )


def _run_process(*arguments: str) -> str:
    """Run this module with the arguments and return what it prints."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def main() -> int:
    parser = argument_parser(__doc__, quick="one small model, fewer batches")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    for hidden in ("--peak", "--growth"):  # for the processes that this one starts
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--monitored", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print_peak(options.peak, options.monitored)
        return 0
    if options.growth:
        print_growth(int(options.growth))
        return 0
    report = Report("Memory", [])
    models = ["convnet"] if options.quick else options.models
    measure_memory(report, models, 1_000 if options.quick else 10_000)
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())
