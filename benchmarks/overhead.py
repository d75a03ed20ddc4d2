"""What the callback costs a training step, beside what others cost.

``python -m benchmarks.overhead [--models ...] [--threads ...] [--json FILE] [--check] [--quick]``

In one process, every way of watching trains a copy of the same network. A round takes two blocks
after each other, one of plain steps and one of watched steps, the first step of a block not
timed; the ratio of their times is one observation, and the table has the medians. Ours is the real
callback (all its hooks, called as Lightning calls them), publishing to a client in a process of its
own that reads everything. The peers do per batch what their users do.

The clock: ``wall`` is what a user feels. On a machine that other programs use at the same time,
``cpu`` (processor time of this process) is steadier; it counts what our own helper threads do.
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

from benchmarks.alternatives import PEERS
from benchmarks.memory import measure_memory
from benchmarks.report import Report, progress_bar
from benchmarks.training_loops import BATCH, MODELS, Ours, Plain, convnet
from revacnn_lightning.telemetry import STATISTICS

LIMITS = {"always": {"mobilenet_v2": 1.03}, "everything": {"mobilenet_v2": 1.15}}
LIMIT = {"always": 1.02, "everything": 1.08}
ROUNDS = {"convnet": 30, "mobilenet_v2": 12, "vgg11_bn": 9, "resnet18": 6}
# Which of ours a peer is compared with: the one that gathers as much; else the always-set.
COMPARABLE = {"plain hooks, all": "everything"}
TIMED = 2  # steps of a block
PARTS = ("steps", "viewers", "memory")

# ---------------------------------------------------------------------- measuring


def block(variant: Plain, clock: Callable[[], float]) -> float:
    """Seconds of a step, the first one not counted."""
    variant.begin()
    variant.step()
    begin = clock()
    for _ in range(TIMED):
        variant.step()
    elapsed = clock() - begin
    variant.end()
    return elapsed / TIMED


def ratio_of(
    plain: Plain, variant: Plain, rounds: int, clock: Callable[[], float], tick: Callable[..., None]
) -> tuple[float, list[float]]:
    """(median of watched / plain, plain seconds of each round)."""
    ratios, seconds = [], []
    for index in range(rounds):
        pair = [plain, variant] if index % 2 else [variant, plain]
        times = {id(each): block(each, clock) for each in pair}
        ratios.append(times[id(variant)] / times[id(plain)])
        seconds.append(times[id(plain)])
        tick(1)
    return statistics.median(ratios), seconds


@contextlib.contextmanager
def opened(make: Callable[[], Plain]) -> Iterator[Plain]:
    variant = make()
    try:
        yield variant
    finally:
        variant.close()


def measure_model(
    report: Report, name: str, threads: int, rounds: int, peers: list[str], options: Any
) -> None:
    """One row of the table, and its checks."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    net = MODELS[name]()
    variants: dict[str, Callable[[], Plain]] = {
        "always": lambda: Ours(copy.deepcopy(net)),
        "everything": lambda: Ours(copy.deepcopy(net), statistics=STATISTICS),
    }
    for peer in peers:
        variants[peer] = lambda make=PEERS[peer]: make(copy.deepcopy(net))  # type: ignore[misc]
    plain = Plain(copy.deepcopy(net))
    for _ in range(3):
        plain.step()
    ratios: dict[str, float] = {}
    seconds: list[float] = []
    total = sum(rounds if v in LIMIT else max(3, rounds // 3) for v in variants)
    with progress_bar(total, f"{name}, {threads} thread(s)") as tick:
        for key, make in variants.items():
            count = rounds if key in LIMIT else max(3, rounds // 3)
            with opened(make) as variant:
                ratios[key], each = ratio_of(plain, variant, count, options.clock, tick)
            seconds += each
            del variant
            gc.collect()
    milliseconds = 1000 * statistics.median(seconds)
    report.row(name, threads, milliseconds, *(f"{r:.3f}" for r in ratios.values()))
    for key in LIMIT:
        limit = LIMITS[key].get(name, LIMIT[key])
        report.check(
            f"{key}, {name}, {threads} thread(s)", ratios[key], f"≤ {limit}", ratios[key] <= limit
        )
    for peer in peers:
        ours = COMPARABLE.get(peer, "always")
        extra, theirs = ratios[ours] - 1, ratios[peer] - 1
        report.check(
            f"extra cost of {ours} / {peer}, {name}, {threads} thread(s)",
            f"{max(extra, 0):.4f} / {theirs:.4f}",
            "≤ 1/5",
            extra <= theirs / 5,
        )


# ---------------------------------------------------------------------- the viewer's state


def measure_viewers(report: Report, rounds: int, options: Any) -> None:
    """Does it matter to the training what the viewers do? And how long does publishing take?

    Where no viewer is attached, or none any more, nothing is gathered.
    """
    torch.set_num_threads(1)
    net = convnet()
    plain = Plain(copy.deepcopy(net))
    states = {"reading": 1, "frozen": 1, "killed": 1, "absent": 0, "8 reading": 8}
    reference = None
    with progress_bar(rounds * len(states), "viewers") as tick:
        for state, readers in states.items():
            with opened(lambda n=readers: Ours(copy.deepcopy(net), readers=n)) as ours:  # type: ignore[misc]
                assert isinstance(ours, Ours)
                for reader in ours.readers:
                    if state in ("frozen", "killed"):
                        reader.send_signal(signal.SIGSTOP if state == "frozen" else signal.SIGKILL)
                times = _time_publishing(ours)
                ratio, _ = ratio_of(plain, ours, rounds, options.clock, tick)
            p99 = 1000 * float(np.quantile(times or [0.0], 0.99))
            report.row(f"convnet, viewer {state}", 1, "", f"{ratio:.3f}")
            report.check(f"publish p99, viewer {state} (ms)", p99, "≤ 1", p99 <= 1)
            if reference is None:
                reference = ratio
            elif state != "8 reading" or options.cores > 8:  # eight readers need processors too
                change = ratio - reference
                report.check(
                    f"change of the ratio, viewer {state}", change, "≤ 0.02", change <= 0.02
                )


def _time_publishing(ours: Ours) -> list[float]:
    """Have every publish timed, in seconds."""
    publisher = ours.session.server.publisher
    publish, times = publisher.publish, []

    def timed(message: Any) -> None:
        begin = time.perf_counter()
        publish(message)
        times.append(time.perf_counter() - begin)

    publisher.publish = timed  # type: ignore[method-assign]
    return times


# ---------------------------------------------------------------------- the command


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--check", action="store_true", help="exit 1 when a figure is missed")
    parser.add_argument("--quick", action="store_true", help="under a minute: one small model")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args(arguments)
    options.clock_name = options.clock
    options.clock = time.perf_counter if options.clock == "wall" else time.process_time
    options.cores = os.cpu_count() or 1
    return options


def available(peers: list[str], report: Report) -> list[str]:
    """The peers that are installed."""
    found = []
    for peer in peers:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if peer == "TensorBoard":
                    import torch.utils.tensorboard  # noqa: F401
                elif peer == "wandb.watch":
                    import wandb  # noqa: F401
        except ImportError as error:
            report.note(f"{peer} is not measured: {error}")
        else:
            found.append(peer)
    return found


def main() -> int:
    options = parsed()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    models = ["convnet"] if options.quick else options.models
    threads = options.threads[:1] if options.quick else options.threads
    report = Report("Step with / step without", [])
    peers = available(options.peers, report)
    report.columns = ["model", "threads", "plain (ms)", "always", "everything", *peers]
    for count in threads if "steps" in options.parts else []:
        for name in models:
            rounds = ROUNDS[name] // 2 if options.quick else ROUNDS[name]
            measure_model(report, name, count, rounds, peers, options)
    if "viewers" in options.parts:
        measure_viewers(report, 6 if options.quick else 25, options)
    if "memory" in options.parts and not options.quick:
        measure_memory(report, options.models, 10_000)
    report.note(
        f"median of interleaved pairs, {options.clock_name} clock, batch {BATCH}, "
        f"load average {os.getloadavg()[0]:.1f} on {options.cores} processors"
    )
    exit_code: int = report.finish(options.json, options.check)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
