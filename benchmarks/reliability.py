"""What a training and its viewers go through without a loss: killed viewers, cuts, and resumes.

- **viewers**: batches at full speed while clients are killed and started at random; steps without
  and with clients, each relative to those of a twin without any.
- **attach**: from the start of a client's process until it receives a batch.
- **cut**: a network that lets nothing pass for a minute, and how soon both sides are back.
- **resume**: a training that is killed and resumes from its checkpoint, and how soon a page that
  showed it shows the new run.

``python -m benchmarks.reliability [--only ...] [--json FILE] [--check] [--quick]``
"""

from __future__ import annotations

import os
import random
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.hostile_clients import TimedTraining, Usage, train_for
from benchmarks.network_cut import CuttableNetwork
from benchmarks.report import Report, argument_parser
from benchmarks.training_loops import MODELS
from revacnn_lightning.client.run import Run
from viewer.runs.registry import RunRegistry
from viewer.tab.run_selection import RunSelection

VIEWERS, KILLED_VIEWERS = 8, 4
ROUNDS = 5  # without and with viewers
PAIRS = 10  # of blocks of the training and of its twin, per round
BLOCK_SECONDS = 0.5
START_SECONDS = 8.0  # until all viewers have imported everything and attached
MAX_RATIO = 1.05  # of the processor time of a step, with the viewers relative to without
MAX_CALLBACK_SHARE = 0.02  # of a step, beyond what the callback takes without viewers
MAX_DESCRIPTORS = 32
MAX_MEGABYTES = 20.0
MAX_ATTACH_SECONDS = 2.0
MAX_NOTICE_SECONDS = 5.0
MAX_BACK_SECONDS = 3.0
CHECK_SECONDS = 0.01
PATIENCE_SECONDS = 120.0
LIVES_SECONDS = (0.5, 4.0)  # of a viewer that is killed


class ViewerProcesses:
    """Client processes; some are killed and replaced at random."""

    def __init__(self, file: Path) -> None:
        self._command = [sys.executable, "-m", "benchmarks.watching_client", str(file)]
        self._chance = random.Random(0)
        self.processes = [self._start() for _ in range(VIEWERS)]
        self.n_killed = 0
        self._next_kill = 0.0

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

    def kill_one_if_due(self) -> None:
        """Kill one of the first `KILLED_VIEWERS` and start another in its place."""
        now = time.monotonic()
        if now < self._next_kill:
            return
        self._next_kill = now + self._chance.uniform(*LIVES_SECONDS)
        i = self._chance.randrange(KILLED_VIEWERS)
        self.processes[i].kill()
        self.processes[i].wait()
        self.processes[i] = self._start()
        self.n_killed += 1

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def measure_viewers(report: Report, *, is_quick: bool) -> None:
    """Train while viewers come and go; then compare steps without and with viewers."""
    n_batches = 1_000 if is_quick else 24_000
    with closing(TimedTraining(MODELS["convnet"](), clients=0)) as training:
        training.begin_block()
        train_for(training, 1.0)
        with closing(ViewerProcesses(training.file)) as viewers:
            wait_for(lambda: (training.step(), training.session.is_recording)[1], "a viewer")
            first = train_for(training, 2.0 if is_quick else 10.0)
            failed = 0
            for _ in range(n_batches):
                viewers.kill_one_if_due()
                try:
                    training.step()
                except RuntimeError as error:  # monitoring has stopped
                    failed += 1
                    report.add_note(str(error))
                    break
            last = train_for(training, 2.0 if is_quick else 10.0)
        report.add_row("viewers", f"{n_batches:,} batches, {viewers.n_killed} viewers killed")
        report.check_at_most("viewers: failed batches", failed, 0)
        _add_usage(report, first, last)
        _compare_steps(report, training, n_rounds=1 if is_quick else ROUNDS)


def _add_usage(report: Report, first: Usage, last: Usage) -> None:
    descriptors, megabytes = last.descriptors - first.descriptors, last.megabytes - first.megabytes
    report.add_row("", f"{descriptors:+d} descriptors, {megabytes:+.1f} MB")
    report.check_at_most("viewers: descriptors", descriptors, MAX_DESCRIPTORS)
    report.check_at_most("viewers: memory (MB)", megabytes, MAX_MEGABYTES)


def _compare_steps(report: Report, training: TimedTraining, n_rounds: int) -> None:
    """Compare steps without and with viewers.

    A machine changes its speed within seconds. A twin of the training, which nobody sees, changes
    it in the same way: its blocks and those of the training are measured in turns. Without a viewer
    nothing is recorded, so the ratio includes what the statistics cost.
    """
    ratios, shares, milliseconds = [], [], []
    with closing(TimedTraining(MODELS["convnet"](), clients=0)) as twin:
        twin.begin_block()
        for _ in range(n_rounds):
            wait_for(lambda: (training.step(), not training.session.is_recording)[1], "no viewer")
            alone = _relative_usage(training, twin)
            with closing(ViewerProcesses(training.file)):
                train_for(training, START_SECONDS)
                seen = _relative_usage(training, twin)
            ratios.append(seen.step / alone.step)
            shares.append(seen.callback_share - alone.callback_share)
            milliseconds.append(1e3 * alone.twin_seconds)
    ratio, share = statistics.median(ratios), statistics.median(shares)
    step = f"step {statistics.median(milliseconds):.2f} ms alone, × {ratio:.3f} with viewers"
    report.add_row("", f"{step} ({min(ratios):.3f} to {max(ratios):.3f})")
    report.add_row("", f"the callback takes {share:.1%} of a step more with viewers")
    report.check_at_most("viewers: time of a step, relative", ratio, MAX_RATIO)
    report.check_at_most("viewers: share of the callback", share, MAX_CALLBACK_SHARE)


class RelativeUsage(NamedTuple):
    """What a step of a training takes, relative to a step of its twin: medians over blocks.

    ``callback_share`` is what the callback takes of it. ``twin_seconds`` is the step of the twin.
    """

    step: float
    callback_share: float
    twin_seconds: float


def _relative_usage(training: TimedTraining, twin: TimedTraining) -> RelativeUsage:
    """Measure blocks of a training and of its twin in turns."""
    pairs = []
    for index in range(PAIRS):
        order = (training, twin) if index % 2 else (twin, training)
        usages = {each: train_for(each, BLOCK_SECONDS) for each in order}
        pairs.append((usages[training], usages[twin]))
    median = statistics.median
    return RelativeUsage(
        median(one.step_seconds / other.step_seconds for one, other in pairs),
        median(one.callback_seconds / other.step_seconds for one, other in pairs),
        median(other.step_seconds for _, other in pairs),
    )


def measure_attaching(report: Report, *, is_quick: bool) -> None:
    """Start clients one after the other and measure until each receives a batch."""
    with closing(TimedTraining(MODELS["convnet"](), clients=0)) as training:
        training.begin_block()
        command = [sys.executable, "-m", "benchmarks.watching_client", str(training.file)]
        seconds = []
        for _ in range(2 if is_quick else 10):
            started = time.perf_counter()
            with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
                while not select.select([client.stdout], [], [], 0)[0]:
                    training.step()
                seconds.append(time.perf_counter() - started)
                client.kill()
    report.add_row("attach", f"{min(seconds):.2f} to {max(seconds):.2f} s to the first batch")
    report.check_at_most(
        "attach: from cold to the first batch (s)", max(seconds), MAX_ATTACH_SECONDS
    )


def measure_cut(report: Report, *, is_quick: bool) -> None:
    """Cut the network between a training and a client."""
    cut_seconds = 5.0 if is_quick else 60.0
    with (
        closing(TimedTraining(MODELS["convnet"](), clients=0, host="127.0.0.1")) as training,
        CuttableNetwork(training.session.connection) as network,
        closing(Run(network.connection)) as run,
    ):
        training.begin_block()

        def train_until(is_reached: Callable[[], bool], what: str) -> float:
            started = time.monotonic()

            def is_now() -> bool:
                training.step()
                run.poll()
                return is_reached()

            wait_for(is_now, what)
            return time.monotonic() - started

        train_until(lambda: run.snapshot is not None, "a batch")
        network.cut()
        noticed = train_until(lambda: run.seconds_unreachable() > 0, "the notice of a cut")
        train_until(lambda: run.seconds_unreachable() > cut_seconds - noticed, "the cut")
        restored_at = training.index
        network.restore()
        back = train_until(
            lambda: run.snapshot is not None and run.snapshot.step >= restored_at, "a batch"
        )
    report.add_row(
        "cut", f"{cut_seconds:.0f} s: noticed after {noticed:.1f} s, back {back:.1f} s after"
    )
    report.check_at_most("cut: noticed (s)", noticed, MAX_NOTICE_SECONDS)
    report.check_at_most("cut: back (s)", back, MAX_BACK_SECONDS)


def measure_resume(report: Report, *, is_quick: bool) -> None:
    """Kill a training, resume it, and measure until a page that showed it shows the new run."""
    del is_quick
    with tempfile.TemporaryDirectory() as folder:
        os.environ["REVACNN_RUNTIME_DIR"] = folder
        command = [sys.executable, "-m", "benchmarks.resumed_training", folder]
        registry = RunRegistry()
        selection = RunSelection(registry.placeholder, registry)

        def shown_step() -> int:
            registry.tick()
            selection.update()
            state = selection.follower.state
            return -1 if state is None or state.snapshot is None else state.snapshot.step

        with subprocess.Popen(command) as training:
            try:
                wait_for(lambda: shown_step() > 50, "a checkpoint")
                killed = selection.follower.run_id
                os.kill(training.pid, signal.SIGKILL)
                training.wait()
                noticed = wait_for(lambda: selection.follower.run_status().kind == "gone", "end")
            finally:
                training.kill()
        with closing(registry), subprocess.Popen(command) as training:
            try:
                wait_for(
                    lambda: shown_step() >= 0 and selection.follower.run_id != killed, "resume"
                )
                state = selection.follower.state
                assert state is not None
                back = time.time() - state.connection.start_time
            finally:
                training.kill()
        steps = state.histories.scalars.steps
    report.add_row(
        "resume", f"end shown after {noticed:.1f} s, {back:.1f} s after the new run began"
    )
    report.check_at_most("resume: end shown (s)", noticed, MAX_BACK_SECONDS)
    report.check_at_most("resume: back (s)", back, MAX_BACK_SECONDS)
    report.check_at_most("resume: first batch in the curves", float(steps[0]), 0)


def wait_for(condition: Callable[[], object], what: str) -> float:
    """Wait until a condition holds; return for how many seconds.

    Raises:
        TimeoutError: it does not within `PATIENCE_SECONDS`.
    """
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > PATIENCE_SECONDS:
            raise TimeoutError(f"{what} did not come within {PATIENCE_SECONDS:.0f} s")
        time.sleep(CHECK_SECONDS)
    return time.monotonic() - started


PARTS: dict[str, Callable[..., None]] = {
    "viewers": measure_viewers,
    "attach": measure_attaching,
    "cut": measure_cut,
    "resume": measure_resume,
}


def main() -> int:
    parser = argument_parser(__doc__, quick="1,000 batches, a cut of 5 seconds")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = Report("Reliability", ["part", "result"])
    for name in options.only:
        PARTS[name](report, is_quick=options.quick)
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())
