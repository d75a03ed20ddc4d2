"""Duration of a monitored training step relative to a plain one, beside other tools.

``python -m benchmarks.overhead [--models ...] [--threads ...] [--json FILE] [--check] [--quick]``

All variants train copies of the same network in one process. A round times one block of plain
steps and one block of monitored steps; the first step of a block is not timed. The ratio of the two
times is one observation, and the table shows medians. For ReVACNN, the real callback runs all its
hooks in Lightning's order and publishes to a client process that receives everything. "default"
records the default statistics and "all" every statistic. "read once" is the least that these can
cost: every map and weight is read once. The other tools do for each batch what their users do.

The rows "narrow" show what the host does (`benchmarks.call_counts`). The tools are those of
``pip install revacnn-lightning[benchmarks]``.

``--device cuda`` trains on a GPU. A block ends when the GPU has done its work.

``--clock wall`` is what a user experiences. ``--clock cpu``, the CPU time of this process with all
its threads, varies less on a busy machine.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import gc
import logging
import os
import signal
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.alternatives import ALTERNATIVES, LIMITS
from benchmarks.host_cost import measure_depth, measure_narrow
from benchmarks.memory import measure_memory
from benchmarks.report import Report, argument_parser, progress_bar
from benchmarks.training_loops import (
    BATCH,
    FURTHER_MODELS,
    MODELS,
    MonitoredTraining,
    PlainTraining,
    convnet,
)
from revacnn_lightning.telemetry import STATISTICS

NETWORKS = {**MODELS, **FURTHER_MODELS}
MAX_RATIO = {"default": 1.02, "all": 1.08}
MAX_RATIO_OF_MODEL = {("default", "mobilenet_v2"): 1.03, ("all", "mobilenet_v2"): 1.15}
# ReVACNN's extra time, relative to the alternative's.
MAX_SHARE = 1 / 5
# The variant of ReVACNN that records as much as the alternative does; "default" for the others.
COUNTERPARTS = {"hooks, all": "all"}
ROUNDS = {
    "convnet": 30, "mobilenet_v2": 12, "vgg11_bn": 9, "resnet18": 6,
    "mlp": 30, "vgg16_head": 6, "resnet_1d": 12, "r3d_18": 6,
}  # fmt: skip
TIMED_STEPS = 2  # per block
MAX_PUBLISH_MS = 1.0
# More than what reading every map and weight once costs in the same run.
MAX_ABOVE_LIMIT = {"default": ("read once", 0.01), "all": ("read once, all", 0.03)}
MAX_RATIO_CHANGE = 0.02  # caused by the state of the viewers
PARTS = ("steps", "host", "viewers", "memory")

Clock = Callable[[], float]


# ---------------------------------------------------------------------- timing


def seconds_per_step(training: PlainTraining, clock: Clock) -> float:
    """Run a block and return the mean duration of its steps, without the first."""
    training.begin_block()
    training.step()
    synchronize(training)
    start = clock()
    for _ in range(TIMED_STEPS):
        training.step()
    synchronize(training)
    elapsed = clock() - start
    training.end_block()
    return elapsed / TIMED_STEPS


def synchronize(training: PlainTraining) -> None:
    """Wait until a GPU has done what the training asked of it."""
    if training.images.is_cuda:
        torch.cuda.synchronize()


def step_ratios(
    plain: PlainTraining,
    variant: PlainTraining,
    round_count: int,
    clock: Clock,
    advance: Callable[[float], None],
) -> tuple[float, list[float]]:
    """Return the median of variant / plain, and the seconds of a plain step in each round."""
    ratios, plain_seconds = [], []
    for index in range(round_count):
        pair = [plain, variant] if index % 2 else [variant, plain]
        seconds = {id(training): seconds_per_step(training, clock) for training in pair}
        ratios.append(seconds[id(variant)] / seconds[id(plain)])
        plain_seconds.append(seconds[id(plain)])
        advance(1)
    return statistics.median(ratios), plain_seconds


@contextlib.contextmanager
def closing_training(training: PlainTraining) -> Iterator[PlainTraining]:
    """Close the training in the end."""
    try:
        yield training
    finally:
        training.close()


# ---------------------------------------------------------------------- the table


def measure_model(
    report: Report, name: str, device: str, rounds: int, alternatives: list[str], clock: Clock
) -> None:
    """Add the row of a model, and its checks."""
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    net = NETWORKS[name]().to(device)
    variants: dict[str, Callable[[nn.Module], PlainTraining]] = {
        "default": MonitoredTraining,
        "all": lambda net: MonitoredTraining(net, statistics=STATISTICS),
        **LIMITS,
        **{key: ALTERNATIVES[key] for key in alternatives},
    }
    exact = {*MAX_RATIO, *LIMITS}
    counts = {key: rounds if key in exact else max(3, rounds // 3) for key in variants}
    plain = PlainTraining(copy.deepcopy(net))
    for _ in range(3):
        plain.step()
    ratios: dict[str, float] = {}
    plain_seconds: list[float] = []
    with progress_bar(sum(counts.values()), f"{name}, {threads} thread(s)") as advance:
        for key, make in variants.items():
            with closing_training(make(copy.deepcopy(net))) as variant:
                ratios[key], each = step_ratios(plain, variant, counts[key], clock, advance)
            plain_seconds += each
            del variant
            gc.collect()
    milliseconds = 1000 * statistics.median(plain_seconds)
    report.add_row(name, threads, milliseconds, *(f"{r:.3f}" for r in ratios.values()))
    check_ratios(report, f"{name}, {threads} thread(s)", name, ratios)


def check_ratios(report: Report, label: str, model: str, ratios: dict[str, float]) -> None:
    """Compare the ratios of ReVACNN with their limits and with the alternatives."""
    for key, limit in MAX_RATIO.items():
        limit = MAX_RATIO_OF_MODEL.get((key, model), limit)
        report.check_at_most(f"{key}, {label}", ratios[key], limit)
    for key, (least, points) in MAX_ABOVE_LIMIT.items():
        report.check_at_most(f"{key} / {least}, {label}", ratios[key], ratios[least] + points)
    for key in (key for key in ratios if key in ALTERNATIVES):
        counterpart = COUNTERPARTS.get(key, "default")
        ours, theirs = ratios[counterpart] - 1, ratios[key] - 1
        report.add_check(
            f"extra time of {counterpart} / {key}, {label}",
            f"{max(ours, 0):.4f} / {theirs:.4f}",
            "<= 1/5",
            ours <= theirs * MAX_SHARE,
        )


# ---------------------------------------------------------------------- the viewers


def measure_viewers(report: Report, rounds: int, clock: Clock) -> None:
    """Check that the state of the viewers does not affect training, and how long publishing takes.

    With no viewer attached, or none any more, nothing is recorded.
    """
    torch.set_num_threads(1)
    net = convnet()
    plain = PlainTraining(copy.deepcopy(net))
    clients = {"reading": 1, "frozen": 1, "killed": 1, "absent": 0, "8 reading": 8}
    reference = None
    with progress_bar(rounds * len(clients), "viewers") as advance:
        for state, count in clients.items():
            training = MonitoredTraining(copy.deepcopy(net), clients=count)
            with closing_training(training):
                for client in training.clients:
                    if state in ("frozen", "killed"):
                        client.send_signal(signal.SIGSTOP if state == "frozen" else signal.SIGKILL)
                times = record_publish_times(training)
                ratio, _ = step_ratios(plain, training, rounds, clock, advance)
            p99 = 1000 * float(np.quantile(times or [0.0], 0.99))
            report.add_row(f"convnet, viewer {state}", 1, "", f"{ratio:.3f}")
            report.check_at_most(f"publish p99, viewer {state} (ms)", p99, MAX_PUBLISH_MS)
            if reference is None:
                reference = ratio
            elif state != "8 reading" or (os.cpu_count() or 1) > 8:  # they need processors, too
                report.check_at_most(
                    f"change of the ratio, viewer {state}", ratio - reference, MAX_RATIO_CHANGE
                )


def record_publish_times(training: MonitoredTraining) -> list[float]:
    """Return a list that receives the duration of every publish from now on, in seconds."""
    publisher = training.session.server.publisher
    publish, times = publisher.publish_frames, []

    def timed_publish(frames: Any) -> None:
        start = time.perf_counter()
        publish(frames)
        times.append(time.perf_counter() - start)

    publisher.publish_frames = timed_publish  # type: ignore[method-assign]
    return times


# ---------------------------------------------------------------------- the command


def parse_options() -> argparse.Namespace:
    parser = argument_parser(__doc__, quick="one small model, or those of --models, few rounds")
    parser.add_argument("--models", nargs="+", choices=NETWORKS, help="default: all")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument(
        "--alternatives", nargs="*", choices=ALTERNATIVES, default=list(ALTERNATIVES)
    )
    parser.add_argument("--device", default="cpu", help="of the networks")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    return parser.parse_args()


def installed_alternatives(alternatives: list[str], report: Report) -> list[str]:
    """Return the alternatives that can be imported. Note the others in the report."""
    found = []
    for name in alternatives:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if name == "TensorBoard":
                    import torch.utils.tensorboard  # noqa: F401
                elif name == "wandb.watch":
                    import wandb  # noqa: F401
        except ImportError as error:
            report.add_note(f"{name} is not measured: {error}")
        else:
            found.append(name)
    return found


def main() -> int:
    options = parse_options()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    models = options.models or (["convnet"] if options.quick else list(NETWORKS))
    threads = options.threads[:1] if options.quick else options.threads
    report = Report("Monitored step / plain step", [])
    alternatives = installed_alternatives(options.alternatives, report)
    report.columns = ["model", "threads", "plain (ms)", "default", "all", *LIMITS, *alternatives]
    for count in threads if "steps" in options.parts else []:
        torch.set_num_threads(count)
        for name in models:
            rounds = ROUNDS[name] // 2 if options.quick else ROUNDS[name]
            measure_model(report, name, options.device, rounds, alternatives, clock)
    if "host" in options.parts:
        measure_narrow(report, 4 if options.quick else 25, clock)
        measure_depth(report, 2 if options.quick else 10, clock)
    if "viewers" in options.parts:
        measure_viewers(report, 6 if options.quick else 25, clock)
    if "memory" in options.parts and not options.quick:
        measure_memory(report, [name for name in models if name in MODELS], 10_000)
    report.add_note(
        f"median of interleaved pairs, {options.clock} clock, batch {BATCH}, "
        f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
    )
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())
