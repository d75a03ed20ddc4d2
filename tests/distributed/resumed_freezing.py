"""A training in two processes whose weights FSDP2 splits, and a second one that resumes it.

``python -m tests.distributed.resumed_freezing FOLDER`` freezes filters in the first one, saves a
checkpoint, and writes what the second one knows of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.distributed.networks import ProcessShareSampler
from revacnn_lightning import Freeze, ReVACNN, Undo, Unfreeze
from revacnn_lightning.runtime.ranks import agreement
from tests.distributed.frozen_training import FrozenNet, tensors_of
from tests.distributed.scripted_training import loader, make_trainer

BATCHES = 4000  # at most
SIZE = 4  # of a batch of each process
STEPS = 4
EDITS = [Freeze("conv1", [0, 3]), Freeze("conv2"), Unfreeze("conv1", [0])]
FROZEN = {"conv1": [3], "conv2": [0, 1, 2]}
UNDONE = {"conv1": [0, 3], "conv2": [0, 1, 2]}


class ValidatedNet(FrozenNet):
    """Is also evaluated, after which FSDP2 leaves whole parameters in its modules."""

    def validation_step(self, batch: Sequence[Tensor], index: int) -> None:
        self(batch[0].double())


class Run(pl.Callback):
    """Requests edits in the first process, and ends the training `STEPS` steps after the last one.

    Args:
        revacnn: the callback, which comes before.
        edits: after the first `STEPS` steps.
        checkpoint: to save in the end.
    """

    def __init__(self, revacnn: ReVACNN, edits: Sequence[Any], checkpoint: Path) -> None:
        self.revacnn, self.left, self.checkpoint = revacnn, list(edits), checkpoint
        self.pending: Any = None
        self.steps = self.steps_after = 0
        self.version = 0
        self.start: dict[str, Any] = {}
        self.end: dict[str, Any] = {}
        self.tensors: list[dict[str, Tensor]] = []  # at the start, before the edits, at the end

    def state(self) -> dict[str, Any]:
        editor = self.revacnn._editor
        assert editor is not None
        frozen = {name: editor.frozen_filters(name) for name in ("conv1", "conv2")}
        step = self.revacnn._continuation.step
        return {"version": editor.version, "frozen": frozen, "step": step}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.start = self.state()
        self.version = self.start["version"] + len(self.left)
        self.tensors.append(tensors_of(pl_module, trainer.optimizers[0]))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.steps += 1
        if self.steps == STEPS:
            self.tensors.append(tensors_of(pl_module, trainer.optimizers[0]))
        is_free = self.pending is None or self.pending.reply is not None
        if trainer.is_global_zero and self.steps >= STEPS and self.left and is_free:
            self.pending = self.revacnn.steer(self.left.pop(0))
        self.steps_after += self.state()["version"] == self.version
        if self.steps_after == STEPS:
            self.end = self.state()
            self.tensors.append(tensors_of(pl_module, trainer.optimizers[0]))
            trainer.save_checkpoint(self.checkpoint)
            trainer.should_stop = True


def train(folder: Path, edits: Sequence[Any], checkpoint: str, resume: Path | None = None) -> Run:
    revacnn = ReVACNN()
    run = Run(revacnn, edits, folder / checkpoint)
    strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    trainer = make_trainer(
        folder, strategy, [revacnn, run], use_distributed_sampler=False, limit_val_batches=2
    )
    data = loader(BATCHES, 2 * SIZE).dataset
    sampler = ProcessShareSampler(BATCHES * 2 * SIZE)  # Lightning's own would shuffle
    batches = DataLoader(data, batch_size=SIZE, sampler=sampler)
    trainer.fit(ValidatedNet(), batches, batches, ckpt_path=resume)
    return run


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> dict[str, list[int]]:
    """Return the rows of each tensor that have changed."""
    return {
        name: [i for i, row in enumerate(value) if not torch.equal(row, after[name][i])]
        for name, value in before.items()
    }


def run_both(folder: Path) -> None:
    agreement.IDLE_SECONDS_BETWEEN = 0.02  # no viewer is attached
    first = train(folder, EDITS, "first.ckpt")
    second = train(folder, [Undo(1)], "second.ckpt", folder / "first.ckpt")
    report = {
        "first": first.end,
        "start": second.start,
        "end": second.end,
        "loaded": moved(first.tensors[-1], second.tensors[0]),
        "moved": moved(second.tensors[0], second.tensors[1]),
    }
    rank = torch.distributed.get_rank()
    (folder / f"process{rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    run_both(Path(sys.argv[1]))
