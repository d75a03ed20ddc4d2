"""The history that the callback keeps: what it costs the training, and how fast it loads.

``python -m benchmarks.history [--json FILE] [--check] [--quick]``

Without a viewer, a batch is recorded now and then. Its extra time is that of two steps, one of them
recorded, relative to two that are not; divided by the mean interval of the samples, it is the share
of a step that the history costs. The history of a simulated ResNet-50 of 26 thousand filters after
100,000 batches is requested over the real sockets and loaded into the state of a viewer.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.report import Report, argument_parser, progress
from benchmarks.training_loops import MODELS, MonitoredTraining
from revacnn_lightning.client.attach import attach
from revacnn_lightning.history.history_recorder import HistoryRecorder
from revacnn_lightning.history.sample_schedule import SampleSchedule
from revacnn_lightning.protocol import connection_file
from revacnn_lightning.protocol.encoding import encode
from revacnn_lightning.protocol.messages import History
from revacnn_lightning.protocol.requests import SendHistory
from tests.viewer.fake_training import FakeTraining
from tests.viewer.processes import training as training_process
from tests.viewer.processes import wait_for
from viewer.runs.run_state import RunState

MAX_SHARE = 0.001  # of a step
MAX_LOAD_SECONDS = 1.0
MAX_MEGABYTES = 8.0
BATCHES, EARLY_BATCHES = 100_000, 20_000
ROUNDS = {"convnet": 60, "resnet18": 8, "mobilenet_v2": 12, "vgg11_bn": 8}
NET = "resnet50"
START_SECONDS = 120


def measure_cost(report: Report, model: str, rounds: int) -> None:
    """Add the share of a step that the history costs a training without a viewer."""
    torch.manual_seed(0)
    training = MonitoredTraining(MODELS[model](), clients=0)
    training.begin_block()
    try:
        extra, step = _extra_time_of_a_sample(training, rounds)
        overhead = training.session.recorder.overhead
    finally:
        training.close()
    interval = _mean_interval(overhead)
    share = (extra + _check_seconds() * interval) / step / interval
    report.add_row(model, 1000 * step, f"{extra / step:.1%}", interval, f"{share:.3%}")
    report.check_at_most(f"share of a step, {model}", share, MAX_SHARE)


def _extra_time_of_a_sample(training: MonitoredTraining, rounds: int) -> tuple[float, float]:
    """Return the median extra seconds of a sampled batch, and the seconds of a step."""
    history = training.session._history
    assert history is not None
    extra, steps = [], []
    for _ in progress(range(rounds), "samples", total=rounds):
        sampled, plain = (_time_two_steps(training, history, due) for due in (True, False))
        extra.append(sampled - plain)
        steps.append(plain / 2)
    return max(0.0, statistics.median(extra)), statistics.median(steps)


def _time_two_steps(training: MonitoredTraining, history: HistoryRecorder, due: bool) -> float:
    """Return the seconds of two steps. The first is sampled if ``due``; the second cleans up."""
    start = time.perf_counter()
    for is_due in (due, False):
        history.is_due = lambda _, is_due=is_due: is_due  # type: ignore[method-assign,misc]
        training.step()
    return time.perf_counter() - start


def _mean_interval(overhead: float) -> float:
    """Return the mean number of batches between two samples, after the first ones."""
    schedule, count = SampleSchedule(), 0
    for step in range(BATCHES):
        if schedule.is_due(step):
            schedule.advance(step, overhead)
            count += step >= EARLY_BATCHES
    return (BATCHES - EARLY_BATCHES) / count


def _check_seconds(repetitions: int = 100_000) -> float:
    """Return how long a batch that is not sampled takes to find that out."""
    history = HistoryRecorder()
    history.begin_sample(10**9, 0.0)
    start = time.perf_counter()
    for step in range(repetitions):
        history.is_due(step)
    return (time.perf_counter() - start) / repetitions


def measure_recording(report: Report) -> FakeTraining:
    """Add how long a sample of a large network takes to enter the history. Return the training."""
    training = FakeTraining(NET)
    add, times = training.kept.add, []

    def timed_add(snapshot: object) -> None:
        start = time.perf_counter()
        add(snapshot)  # type: ignore[arg-type]
        times.append(time.perf_counter() - start)

    training.kept.add = timed_add  # type: ignore[method-assign]
    training.train_unattended(BATCHES)
    message = training.kept.to_message()
    megabytes = sum(memoryview(frame).nbytes for frame in encode(message)) / 2**20
    report.add_note(
        f"{NET}: a sample takes {1e3 * statistics.median(times):.2f} ms (maximum "
        f"{1e3 * max(times):.1f} ms), {len(message.scalars.steps)} rows of {BATCHES} batches"
    )
    report.check_at_most(f"size of the history, {NET} (MB)", megabytes, MAX_MEGABYTES)
    return training


def measure_loading(report: Report, rounds: int) -> None:
    """Check the time from the request to the loaded history, with real sockets."""
    with tempfile.TemporaryDirectory() as folder:
        options = ("--net", NET, "--past", str(BATCHES))
        with training_process(Path(folder), *options):
            wait_for(lambda: any(Path(folder).rglob("*.json")), what="the connection file")
            seconds = [_load(Path(folder)) for _ in range(rounds)]
    total, own = (np.median(each) for each in zip(*seconds, strict=True))
    report.add_note(f"{NET}: of the loading time, the viewer spends {1000 * own:.0f} ms")
    report.check_at_most(f"loading the history, {NET} (s)", float(total), MAX_LOAD_SECONDS)


def _load(folder: Path) -> tuple[float, float]:
    """Return the seconds from the request to the loaded history, and those spent on loading."""
    [file] = folder.rglob("*.json")
    connection = connection_file.read(file)
    with attach(connection, timeout=START_SECONDS) as run:
        state = RunState(connection)
        assert run.structure is not None
        state.receive(run.structure)
        start = time.perf_counter()
        run.request(SendHistory())
        while state.history_revision == 0:
            for message in run.poll():
                began = time.perf_counter()
                state.receive(message)
                if isinstance(message, History):
                    return time.perf_counter() - start, time.perf_counter() - began
            time.sleep(0.001)
    raise AssertionError("the history was refused")


def main() -> int:
    parser = argument_parser(__doc__, quick="one small model")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    columns = ["model", "step (ms)", "extra of a sample", "batches per sample", "share of a step"]
    report = Report("History", columns)
    for model in ["convnet"] if options.quick else options.models:
        measure_cost(report, model, ROUNDS[model])
    measure_recording(report)
    measure_loading(report, 3 if options.quick else 9)
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())
