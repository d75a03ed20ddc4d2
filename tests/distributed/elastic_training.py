"""A training whose second process is killed after edits; torchrun starts both again.

``python -m torch.distributed.run --standalone --nproc-per-node 2 --max-restarts 1
-m tests.distributed.elastic_training FOLDER`` resumes the edited run then. It writes what happened.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from benchmarks.distributed.resume import CheckLoadedTensors
from revacnn_lightning import AddFilters, Freeze, InsertLayer, RemoveFilters, ReVACNN
from revacnn_lightning.runtime.ranks import agreement
from revacnn_lightning.steering.execution.peers import checksum
from tests.distributed.scripted_training import Net, is_same_everywhere, loader, make_trainer

BATCHES = 4000  # at most
STEPS_AFTER = 5  # the last edit
EDITS = [AddFilters("conv1", 2), Freeze("conv1", [0]), InsertLayer("conv2")]
EDITS_AFTER = [RemoveFilters("conv1", [1, 3])]  # in the resumed run


class Script(pl.Callback):
    """Requests edits in the first process, saves a checkpoint, and ends the training or a process.

    Args:
        revacnn: the callback, which comes before.
        edits: at the start.
        checkpoint: to save when they are made.
        ends_process: whether the second process is killed then.
    """

    def __init__(
        self, revacnn: ReVACNN, edits: Sequence[Any], checkpoint: Path, *, ends_process: bool
    ) -> None:
        self.revacnn, self.left, self.checkpoint = revacnn, list(edits), checkpoint
        self.ends_process = ends_process
        self.pending: Any = None
        self.first_version = self.last_version = self.steps_after = 0
        self.different: list[int] = []  # batches

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        editor = self.revacnn._editor
        assert editor is not None
        self.first_version = editor.version
        self.last_version = editor.version + len(self.left)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if not is_same_everywhere(checksum(pl_module, trainer.optimizers)):
            self.different.append(args[2])
        is_free = self.pending is None or self.pending.reply is not None
        if trainer.is_global_zero and self.left and is_free:
            self.pending = self.revacnn.steer(self.left.pop(0))
        editor = self.revacnn._editor
        assert editor is not None
        if editor.version < self.last_version:
            return
        if self.steps_after == 0:
            trainer.save_checkpoint(self.checkpoint)
        self.steps_after += 1
        if self.steps_after == STEPS_AFTER and self.ends_process and trainer.global_rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        trainer.should_stop = self.steps_after > STEPS_AFTER


def run(folder: Path) -> None:
    agreement.IDLE_SECONDS_BETWEEN = 0.02  # no viewer is attached
    checkpoint = folder / "edited.ckpt"
    is_resumed = checkpoint.exists()
    revacnn, module = ReVACNN(), Net()
    edits, end = (EDITS_AFTER, "end.ckpt") if is_resumed else (EDITS, "edited.ckpt")
    script = Script(revacnn, edits, folder / end, ends_process=not is_resumed)
    checks = [CheckLoadedTensors(checkpoint, folder)] if is_resumed else []
    trainer = make_trainer(folder, "ddp", [revacnn, script, *checks])
    trainer.fit(module, loader(BATCHES, 8), ckpt_path=checkpoint if is_resumed else None)
    report = {
        "restarts": int(os.environ["TORCHELASTIC_RESTART_COUNT"]),
        "versions": [script.first_version, script.last_version],
        "different": script.different,
        "width": module.conv1.out_channels,
        "step": trainer.global_step,
    }
    (folder / f"process{trainer.global_rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    run(Path(sys.argv[1]))
