"""A training in two processes, whose first one requests edits at given batches.

``python -m tests.distributed.scripted_training STRATEGY FOLDER`` checks after every batch, in every
process, that all have the same weights and optimizer state, and writes what happened.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.distributed.resume import CheckLoadedTensors
from revacnn_lightning import (
    AddFilters,
    ControlRun,
    Freeze,
    InsertLayer,
    Redo,
    RemoveFilters,
    ReVACNN,
    Run,
    ScaleLearningRate,
    SetGradientClipping,
    SetHyperparameter,
    Undo,
    attach,
)
from revacnn_lightning.protocol.rank_messages import RankValues
from revacnn_lightning.protocol.requests import InspectRanks
from revacnn_lightning.protocol.snapshot import Snapshot
from revacnn_lightning.steering.execution.peers import checksum

# Of each process, at most. An exchange may take tens of these short batches. The last request of
# `SCRIPT` stops the training; after that of `SCRIPT_WITH_ERROR`, the few batches are trained.
BATCHES, FEW_BATCHES = 6_000, 600
FAILING_WIDTH = 9  # of conv1, with which the forward of the second process raises
# The batch before which a weight of the second process changes by itself, or a later one: once all
# edits are applied, after which conv1 has `LAST_WIDTH` filters.
OUT_OF_STEP = 64
LAST_WIDTH = 3
RATE = SetHyperparameter(0, 0, "lr", 5e-3)
CLIPPING = SetGradientClipping(0.01)
REFUSED_CLIPPING = 29  # batch, or a later one: once the first clipping is in force
# Requests by the batch before which the first process makes them.
SCRIPT: dict[int, Any] = {
    2: AddFilters("conv1", 2),
    4: ScaleLearningRate("conv1", 0.1),
    6: Freeze("conv1", [0]),
    10: RemoveFilters("conv1", [1, 2]),
    14: Undo(1),
    18: Redo(1),
    22: InsertLayer("conv2"),
    26: RATE,
    28: CLIPPING,
    REFUSED_CLIPPING: SetGradientClipping(0.02),  # the second process cannot any more
    30: AddFilters("conv1", 5),  # to FAILING_WIDTH
    35: ControlRun("step", batches=2),
    46: RemoveFilters("conv1", [3]),
    67: AddFilters("conv1", 1),  # when the processes are out of step
    72: ControlRun("stop"),
}
INTERNAL_ERROR = 60  # batch before which the session of rank 0 raises, and an undo is requested
SCRIPT_WITH_ERROR = {
    **{batch: body for batch, body in SCRIPT.items() if batch < INTERNAL_ERROR},
    42: ControlRun("checkpoint"),
    INTERNAL_ERROR: Undo(1),
}


class Net(pl.LightningModule):
    """conv1 -> norm -> conv2 -> linear, on 6x6 images."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 3, 3)
        self.linear = nn.Linear(3 * 16, 2)

    def forward(self, images: Tensor) -> Tensor:
        if self.conv1.out_channels == FAILING_WIDTH and self.global_rank == 1:
            raise RuntimeError("this process cannot")
        hidden = torch.relu(self.norm(self.conv1(images)))
        return self.linear(torch.relu(self.conv2(hidden)).flatten(1))

    def training_step(self, batch: Sequence[Tensor], index: int) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class BranchingNet(Net):
    """Has a layer that every other batch does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(36, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.run_all(images) if self.global_step % 2 else super().forward(images)

    def run_all(self, images: Tensor) -> Tensor:
        """Run the layer as well."""
        return super().forward(images) + self.spare(images.flatten(1))


def run_all_branches(module: BranchingNet, batch: Sequence[Tensor]) -> Tensor:
    """Run what training may run: an edit is refused if a trained layer is missing in its trace."""
    return module.run_all(batch[0])


def device_of_group() -> str:
    """Return the kind of device whose tensors the processes exchange."""
    return "cuda" if distributed.get_backend() == "nccl" else "cpu"


def is_same_everywhere(value: int) -> bool:
    """Return whether all processes pass the same value."""
    own = torch.tensor([value], device=device_of_group())
    found = [torch.zeros_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(found, own)
    return len({int(each) for each in found}) == 1


class Script(pl.Callback):
    """Requests what a script says, and compares the processes. It comes after the callback."""

    def __init__(self, revacnn: ReVACNN, script: dict[int, Any], viewer: Viewer) -> None:
        self.revacnn, self.script, self.viewer = revacnn, script, viewer
        self.left = dict(script)
        self.pending: list[Any] = []
        self.outcomes: list[list[Any]] = []
        self.different: list[int] = []  # batches
        self.version = 0
        self.clipped_at: int | None = None  # batch before which the gradient was clipped first
        self.edited_at: int | None = None  # batch before which conv1 got its last width
        self.is_out_of_step = False  # the second process
        self.resumption: threading.Timer | None = None

    def is_due(self, batch: int) -> bool:
        """Return whether a request is due.

        The first one after a pause is due after the resumption, the first one after `OUT_OF_STEP`
        when the second process is out of step, the last one when the viewer has seen the
        difference.
        """
        if self.resumption is not None and self.resumption.is_alive():
            return False
        if self.left and min(self.left) == REFUSED_CLIPPING:
            return self.clipped_at is not None and batch > self.clipped_at
        is_after = bool(self.left) and min(self.left) > OUT_OF_STEP
        if is_after and (self.edited_at is None or batch < self.edited_at + 3):
            return False
        is_last = len(self.left) == 1
        is_early = (
            is_last
            and self.script == SCRIPT
            and not self.viewer.differing
            and batch < BATCHES - 100
        )
        return bool(self.left) and min(self.left) <= batch and not is_early

    def request(self, body: Any) -> None:
        self.pending.append((type(body).__name__, self.revacnn.steer(body)))

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        editor = self.revacnn._editor
        if editor is not None and editor.version != self.version:
            self.version = editor.version
            buffers = float(sum(each.double().sum() for each in pl_module.buffers()))
            if not is_same_everywhere(hash(buffers)):
                self.different.append(batch_idx)
        if self.edited_at is None and pl_module.conv1.out_channels == LAST_WIDTH:
            self.edited_at = batch_idx
        if self.clipped_at is None and trainer.gradient_clip_val:
            self.clipped_at = batch_idx
        if trainer.is_global_zero and self.is_due(batch_idx):
            body = self.left.pop(min(self.left))
            if not self.left and self.script == SCRIPT_WITH_ERROR:
                self.revacnn._stop_monitoring("Monitoring stopped", "a bug of ours")
            self.request(body)
            if getattr(body, "action", "") == "step":
                self.resumption = threading.Timer(0.5, self.request, [ControlRun("resume")])
                self.resumption.start()
        if trainer.global_rank == 1 and trainer.gradient_clip_val:
            own = pl_module.configure_gradient_clipping  # as if it were the user's own
            pl_module.configure_gradient_clipping = own
        is_second = self.script == SCRIPT and trainer.global_rank == 1
        is_edited = self.edited_at is not None and batch_idx >= OUT_OF_STEP
        if is_second and is_edited and not self.is_out_of_step:
            self.is_out_of_step = True
            with torch.no_grad():
                pl_module.linear.weight[0, 0] += 0.5

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if not is_same_everywhere(checksum(pl_module, trainer.optimizers)):
            self.different.append(args[2])
        for each in [each for each in self.pending if each[1].reply is not None]:
            self.pending.remove(each)  # the timer's thread may append
            name, pending = each
            reply = pending.reply
            text = getattr(reply, "reason", "") or getattr(reply, "detail", "")
            self.outcomes.append([name, type(reply).__name__, text, args[2]])

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        for name, pending in self.pending:  # what stopped the training, with the last batch
            self.outcomes.append([name, type(pending.reply).__name__, "", -1])
        report = {
            "outcomes": self.outcomes,
            "different": self.different,
            "step": trainer.global_step,
            "rate": trainer.optimizers[0].param_groups[0]["lr"],
            "clipping": [trainer.gradient_clip_val, trainer.gradient_clip_algorithm],
            "width": pl_module.conv1.out_channels,
            "ranks": sorted(self.viewer.ranks),
            "differing": self.viewer.differing,
        }
        folder = Path(trainer.default_root_dir)
        (folder / f"process{trainer.global_rank}.json").write_text(json.dumps(report))


class Viewer(pl.Callback):
    """Attaches to the run from a thread of rank 0, and compares the ranks after the script."""

    def __init__(self, revacnn: ReVACNN) -> None:
        self.revacnn = revacnn
        self.ranks: set[int] = set()  # that snapshots are means of
        self.differing: list[int] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.is_global_zero:
            file = self.revacnn.connection_file
            threading.Thread(target=self.watch, args=[file], daemon=True).start()

    def watch(self, file: Path) -> None:
        with attach(file) as run:
            while not run.has_ended():
                for message in run.poll():
                    self.read(message)
                if run.structure is not None:
                    self.inspect(run)
                time.sleep(0.05)

    def read(self, message: Any) -> None:
        if isinstance(message, Snapshot):
            self.ranks.add(message.ranks)
        elif isinstance(message, RankValues):
            self.differing = sorted(message.differences())

    def inspect(self, run: Run) -> None:
        if not self.differing:
            run.request(InspectRanks("conv1"))


def loader(batches: int, size: int) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(batches * size, 1, 6, 6, generator=generator)
    labels = torch.randint(2, (len(images),), generator=generator)
    return DataLoader(TensorDataset(images, labels), batch_size=4)


def make_trainer(folder: Path, strategy: Any, callbacks: list[Any], **options: Any) -> pl.Trainer:
    defaults = {"max_epochs": 1, "accelerator": "cpu", "devices": 2}
    return pl.Trainer(
        strategy=strategy, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        callbacks=callbacks, **{**defaults, **options},
    )  # fmt: skip


OPTIONS: dict[str, dict[str, Any]] = {
    "ddp": {"find_unused_parameters": True, "gradient_as_bucket_view": True},
    "ddp_fork": {"start_method": "fork", "static_graph": True},
    "ddp_spawn": {"start_method": "spawn", "static_graph": True},
    "ddp_fork, static graph in buckets": {
        "start_method": "fork", "static_graph": True, "gradient_as_bucket_view": True,
    },
    "ddp_fork, unused parameters": {
        "start_method": "fork", "find_unused_parameters": True, "gradient_as_bucket_view": True,
    },
}  # fmt: skip


def run_script(strategy: str, folder: Path) -> None:
    is_branching = "unused" in strategy
    revacnn = ReVACNN(forward=run_all_branches if is_branching else None)  # type: ignore[arg-type]
    module = BranchingNet() if is_branching else Net()
    is_started = strategy != "ddp"  # by Lightning, in new processes
    if is_started:
        revacnn.prepare(module)
    requests = SCRIPT_WITH_ERROR if strategy == "ddp_fork" else SCRIPT
    script = Script(revacnn, requests, Viewer(revacnn))
    callbacks = [revacnn, script, script.viewer]
    configured = DDPStrategy(**OPTIONS[strategy]) if strategy in OPTIONS else strategy
    trainer = make_trainer(folder, configured, callbacks)
    trainer.fit(module, loader(BATCHES if requests is SCRIPT else FEW_BATCHES, 8))
    if is_started:
        assert module.conv1.out_channels == (4 if requests is SCRIPT_WITH_ERROR else 3)
    if requests is SCRIPT_WITH_ERROR:
        resume(folder)


class Stop(pl.Callback):
    """Ends the training before its first batch."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        trainer.should_stop = True


def resume(folder: Path) -> None:
    """Compare, in each process, what is loaded with the checkpoint that `run_script` has saved."""
    [checkpoint] = (folder / "revacnn").glob("*.ckpt")
    strategy = DDPStrategy(start_method="fork")
    trainer = make_trainer(
        folder, strategy, [ReVACNN(), CheckLoadedTensors(checkpoint, folder), Stop()]
    )
    trainer.fit(Net(), loader(FEW_BATCHES, 8), ckpt_path=checkpoint)


if __name__ == "__main__":
    run_script(sys.argv[1], Path(sys.argv[2]))
