"""A rank that is stopped for a while, and one that is killed, with an edit requested meanwhile.

How long it takes until a client names the rank; that the edit is carried out in all ranks or in
none; and that training goes on after the stop, and ends after the kill.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from benchmarks.distributed.driver import is_same_everywhere
from benchmarks.distributed.networks import (
    ClassifierModule,
    forward_batch,
    make_loader,
    normalized_net,
)
from benchmarks.report import Report
from revacnn_lightning import AddFilters, ReVACNN, attach
from revacnn_lightning.errors import RevacnnError

__all__ = ["check_lost_rank"]

LIMIT = 3.0  # seconds until a client names a rank
LAYER = "net.0"
TIMEOUT = 120.0
ATTEMPTS = 3
SHIFT = 1.7  # seconds by which the next attempt kills later, between two looks of Lightning


class RankRecorder(pl.Callback):
    """Writes the pid of each rank, and after each edit whether all ranks are the same."""

    def __init__(self, folder: Path, revacnn: ReVACNN) -> None:
        self.folder, self.revacnn, self.version = folder, revacnn, 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        (self.folder / f"pid{trainer.global_rank}").write_text(str(os.getpid()))

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        editor = self.revacnn._editor
        if editor is not None and editor.version != self.version:
            self.version = editor.version
            is_same = is_same_everywhere(pl_module, trainer.optimizers)
            (self.folder / f"same{trainer.global_rank}").write_text(str(int(is_same)))
        time.sleep(0.01)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        widths = [len(parameter) for parameter in pl_module.net[0].parameters()]
        widths += [len(pl_module.net[1].running_mean), pl_module.net[3].in_channels]
        (self.folder / f"widths{trainer.global_rank}").write_text(json.dumps(widths))


def train_in_two_ranks(folder: Path) -> None:
    """Train in two ranks until the process is ended."""
    revacnn = ReVACNN(forward=forward_batch, connection_file=folder / "run.json")
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        callbacks=[revacnn, RankRecorder(folder, revacnn)], max_epochs=-1,
        use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(ClassifierModule(normalized_net), make_loader(100, 8, torch.float32))


def check_lost_rank(report: Report, stop_seconds: float, folder: Path) -> None:
    """Stop a rank for ``stop_seconds``, then kill it.

    Every five seconds, Lightning kills rank 0 if another rank has ended. Where that comes before
    the error of rank 0, there is no network to compare: the measurement is repeated.
    """
    for attempt in range(ATTEMPTS):
        if _measure(report, stop_seconds + attempt * SHIFT, folder / str(attempt)):
            return
        report.add_note("Lightning has killed rank 0 before its error: measured again")
    report.check_at_least("killed rank: the error of rank 0 was seen", 0, 1)


def _measure(report: Report, seconds: float, folder: Path) -> bool:
    """Return whether rank 0 has ended with an error."""
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "benchmarks.distributed.lost_rank", str(folder)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        stopped, killed, before, is_in_all = _stop_and_kill(seconds, folder)
        process.wait(TIMEOUT)
    finally:
        process.kill()
    if process.returncode == -signal.SIGKILL and not (folder / "widths0").exists():
        return False
    widths = json.loads((folder / "widths0").read_text())
    report.add_note(f"a rank stopped for {seconds:.0f} s was named after {stopped:.2f} s")
    report.add_note(f"a killed rank was named after {killed:.2f} s")
    report.check_at_most("stopped rank: seconds until it is named", stopped, LIMIT)
    report.check_at_least("stopped rank: the edit is in all ranks", is_in_all, 1)
    report.check_at_most("killed rank: seconds until it is named", killed, LIMIT)
    is_whole = len(set(widths)) == 1 and widths[0] > before
    report.check_at_least("killed rank: the edit is whole or absent", is_whole, 1)
    report.check_at_least("killed rank: Lightning ends the training", process.returncode != 0, 1)
    return True


def _stop_and_kill(seconds: float, folder: Path) -> tuple[float, float, int, bool]:
    """Return the seconds until a stopped and a killed rank are named, and about an edit meanwhile.

    These are the layer's width before, and whether all ranks have the edit of the stop.
    """
    wait_for(lambda: (folder / "pid1").exists() and (folder / "run.json").exists())
    pid = int((folder / "pid1").read_text())
    with attach(folder / "run.json") as run:
        wait_for(lambda: run.poll() and run.structure and run.snapshot)

        def names_the_rank() -> bool:
            run.poll()
            return "rank 1" in (run.ranks.problem() or getattr(run.status, "detail", ""))

        def width() -> int:
            run.poll()
            layers = {layer.name: layer for layer in run.structure.layers}
            return layers[LAYER].out_channels

        before = width()
        os.kill(pid, signal.SIGSTOP)
        start = time.monotonic()
        run.request(AddFilters(LAYER, 1))
        wait_for(names_the_rank)
        stopped = time.monotonic() - start
        while time.monotonic() < start + seconds:
            run.poll()
            time.sleep(0.1)
        is_waiting = width() == before
        os.kill(pid, signal.SIGCONT)
        wait_for(lambda: width() > before)
        wait_for(lambda: not names_the_rank())
        wait_for(lambda: all((folder / f"same{rank}").exists() for rank in range(2)))
        same = min(int((folder / f"same{rank}").read_text()) for rank in range(2))

        run.request(AddFilters(LAYER, 1))
        os.kill(pid, signal.SIGKILL)
        start = time.monotonic()
        wait_for(names_the_rank)
        killed = time.monotonic() - start
    return stopped, killed, before, bool(same and is_waiting)


def wait_for(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: it does not.
    """
    end = time.monotonic() + TIMEOUT
    while True:
        try:
            if condition():
                return
        except RevacnnError:  # the run is gone
            pass
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)


if __name__ == "__main__":
    torch.set_num_threads(1)
    train_in_two_ranks(Path(sys.argv[1]))
