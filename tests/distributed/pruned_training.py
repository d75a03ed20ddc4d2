"""A training in two processes that a client prunes to a budget.

``python -m tests.distributed.pruned_training FOLDER`` checks after every batch, in every process,
that all have the same weights and optimizer state, and writes what happened.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.strategies import DDPStrategy

from revacnn_lightning import ControlRun, ReVACNN, attach
from revacnn_lightning.steering.execution.peers import checksum
from tests.distributed.scripted_training import Net, is_same_everywhere, loader, make_trainer

BATCHES = 4000  # at most: the client stops the training
SHARE = 0.8  # of the parameters


class Client(pl.Callback):
    """Starts the pruning from a thread of rank 0, and compares the ranks."""

    def __init__(self, revacnn: ReVACNN) -> None:
        self.revacnn = revacnn
        self.different: list[int] = []  # batches
        self.note = ""
        self.edits = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.is_global_zero:
            file = self.revacnn.connection_file
            self.thread = threading.Thread(target=self.prune, args=[file], daemon=True)
            self.thread.start()

    def prune(self, file: Path) -> None:
        with attach(file) as run:
            run.prune_to(parameters=SHARE, filters=1, every=2)
            run.wait_for(lambda run: run.pruning is not None and run.pruning.state == "ended")
            assert run.pruning is not None
            self.note, self.edits = run.pruning.note, run.pruning.edits
        self.revacnn.steer(ControlRun("stop"))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if not is_same_everywhere(checksum(pl_module, trainer.optimizers)):
            self.different.append(args[2])

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        report = {
            "different": self.different,
            "edits": self.edits,
            "note": self.note,
            "step": trainer.global_step,
            "widths": [pl_module.conv1.out_channels, pl_module.conv2.out_channels],
            "parameters": sum(each.numel() for each in pl_module.parameters()),
        }
        folder = Path(trainer.default_root_dir)
        (folder / f"process{trainer.global_rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    revacnn, module = ReVACNN(), Net()
    revacnn.prepare(module)
    strategy = DDPStrategy(start_method="fork")
    trainer = make_trainer(Path(sys.argv[1]), strategy, [revacnn, Client(revacnn)])
    trainer.fit(module, loader(BATCHES, 8))
