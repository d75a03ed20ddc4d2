"""What recording every batch and logging to TensorBoard cost the training.

``python -m benchmarks.recording [--models ...] [--json FILE] [--check] [--quick]``

All variants train copies of the same network in one process, in turns: blocks of steps that record
the statistics of every batch, as with a viewer, and blocks that also write them to a file, or log
summaries of the layers to TensorBoard at Lightning's default interval. The ratio of the two times
is one observation, and the table shows medians. "plain" is a training without the callback.
"""

from __future__ import annotations

import copy
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers import TensorBoardLogger

from benchmarks.report import Report, argument_parser, progress
from benchmarks.training_loops import MODELS, MonitoredTraining, PlainTraining
from revacnn_lightning import StartRecording
from revacnn_lightning.recording.recording_reader import RecordingReader

MAX_RATIO = 1.01
LOGGING_INTERVAL = 50  # Lightning's default
BLOCK_STEPS = {"convnet": 100, "resnet18": 50, "mobilenet_v2": 50, "vgg11_bn": 50}
ROUNDS = {"convnet": 40, "resnet18": 6, "mobilenet_v2": 8, "vgg11_bn": 6}


class ObservedTraining(MonitoredTraining):
    """A training whose every batch is recorded, as with a viewer."""

    def __init__(self, net: torch.nn.Module, logger: Any = None, **options: Any) -> None:
        super().__init__(net, clients=0, log_to_loggers=logger is not None, **options)
        self.trainer.loggers = [] if logger is None else [logger]
        self.trainer.log_every_n_steps = LOGGING_INTERVAL
        self.session._needs_recording = lambda: (  # type: ignore[method-assign]
            self.session._observers.need_batch(self.index) or True
        )

    def on_step_end(self, loss: torch.Tensor) -> None:
        super().on_step_end(loss)
        self.trainer.fit_loop.epoch_loop._batches_that_stepped += 1
        self.trainer.global_step += 1


def measure_model(report: Report, name: str, rounds: int, folder: Path) -> None:
    """Add the row of a model, and its checks."""
    torch.manual_seed(0)
    net = MODELS[name]()
    logger = TensorBoardLogger(folder)
    trainings: dict[str, PlainTraining] = {
        "observed": ObservedTraining(copy.deepcopy(net)),
        "recording": ObservedTraining(copy.deepcopy(net)),
        "TensorBoard": ObservedTraining(copy.deepcopy(net), logger),
        "plain": PlainTraining(copy.deepcopy(net)),
    }
    recording: Any = trainings["recording"]
    recording.callback.steer(StartRecording(f"{name}.mcap"))
    seconds: dict[str, list[float]] = {key: [] for key in trainings}
    for number in progress(range(rounds), name, total=rounds):
        order = list(trainings) if number % 2 else list(reversed(trainings))
        for key in order:
            seconds[key].append(seconds_per_step(trainings[key], BLOCK_STEPS[name]))
    n_batches = recording.index
    paths = list(Path(recording.folder.name).rglob("*.mcap"))
    size = check_recording(report, name, recording, paths[0], n_batches)
    for key in ("observed", "TensorBoard"):
        trainings[key].close()
    logger.finalize("success")
    add_row(report, name, seconds, size / n_batches)


def seconds_per_step(training: PlainTraining, step_count: int) -> float:
    """Run a block and return the mean duration of its steps, without the first."""
    training.begin_block()
    training.step()
    start = time.perf_counter()
    for _ in range(step_count):
        training.step()
    elapsed = time.perf_counter() - start
    training.end_block()
    return elapsed / step_count


def check_recording(
    report: Report, name: str, training: MonitoredTraining, path: Path, n_batches: int
) -> int:
    """End the recording, and check that it holds every batch; return its size."""
    training.callback.on_train_end(training.trainer, training.module)
    with RecordingReader(path) as reader:
        steps = [message.step for _, message in reader.messages({"snapshot"})]  # type: ignore[union-attr]
    missing = n_batches - 1 - len(steps)  # it began before the second batch
    report.check_at_most(f"batches missing in the recording, {name}", missing, 0)
    size = path.stat().st_size
    training.close()
    return size


def add_row(report: Report, name: str, seconds: dict[str, list[float]], size: float) -> None:
    def ratio(key: str, other: str) -> float:
        pairs = zip(seconds[key], seconds[other], strict=True)
        return statistics.median(one / two for one, two in pairs)

    recording, logging = ratio("recording", "observed"), ratio("TensorBoard", "observed")
    step = 1000 * statistics.median(seconds["plain"])
    total = ratio("recording", "plain")
    report.add_row(name, step, f"{recording:.4f}", f"{logging:.4f}", f"{total:.4f}", size / 1000)
    report.check_at_most(f"recording, {name}", recording, MAX_RATIO)
    report.check_at_most(f"logging to TensorBoard, {name}", logging, MAX_RATIO)


def main() -> int:
    parser = argument_parser(__doc__, quick="one small model")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, help="blocks of each variant")
    options = parser.parse_args()
    torch.set_num_threads(1)
    columns = ["model", "step (ms)", "recording / observed", "TensorBoard / observed"]
    report = Report("Recording", [*columns, "recording / plain", "kB per batch"])
    with tempfile.TemporaryDirectory() as folder:
        for model in ["convnet"] if options.quick else options.models:
            rounds = options.rounds or (8 if options.quick else ROUNDS[model])
            measure_model(report, model, rounds, Path(folder))
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())
