"""A training in two processes whose weights FSDP2 splits, and whose filters are frozen meanwhile.

``python -m tests.distributed.frozen_training FOLDER`` repeats the training in one process, and
writes what happened. In the end, ReVACNN fails in the second process.
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
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader

from benchmarks.distributed.networks import ProcessShareSampler
from revacnn_lightning import Freeze, Redo, ReVACNN, ScaleLearningRate, Undo, Unfreeze
from revacnn_lightning.runtime.ranks import agreement
from revacnn_lightning.steering import Editor, ForwardProbe
from tests.distributed.scripted_training import loader, make_trainer
from tests.distributed.split_training import SplitNet, whole

BATCHES = 4000  # at most
SIZE = 8  # of a batch of both processes
STEPS_AFTER = 8  # between two edits
LAST = Freeze("conv1", [2])  # requested after the internal error
EDITS = [
    ScaleLearningRate("conv1", 0.1),
    Freeze("conv1", [0, 3]),  # one in each process
    Freeze("conv2"),
    Unfreeze("conv1", [0]),
    Undo(1),
    Redo(1),
    Undo(2),
]
ERROR = "a bug of ours"


class FrozenNet(SplitNet):
    """In double precision; its batch norm does not depend on the size of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.double()
        self.norm.eval()  # a Trainer keeps the modes of the modules

    def training_step(self, batch: Sequence[Tensor], index: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0].double()), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=0.1)


def tensors_of(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return all rows of the parameters and of the moments. All processes call it."""
    found = {}
    for name, parameter in module.named_parameters():
        found[name] = whole(parameter)
        for key in ("exp_avg", "exp_avg_sq"):
            if parameter in optimizer.state:
                found[f"{name}.{key}"] = whole(optimizer.state[parameter][key])
    return found


class Script(pl.Callback):
    """Requests the edits in the first process, and checks frozen filters in both."""

    def __init__(self, revacnn: ReVACNN) -> None:
        self.revacnn = revacnn
        self.left = [*EDITS, LAST]
        self.pending: Any = None
        self.outcomes: list[list[Any]] = []
        self.alerts: list[str] = []
        self.version, self.changed_at = 0, 0
        self.frozen: dict[str, list[int]] = {}
        self.before: dict[str, Tensor] = {}
        self.moved: list[str] = []  # frozen tensors that have changed, and others that have not

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        editor = self.revacnn._editor
        assert editor is not None
        if editor.version != self.version:
            self.check(trainer, pl_module)
            self.version, self.changed_at = editor.version, batch_idx
            self.frozen = {name: editor.frozen_filters(name) for name in ("conv1", "conv2")}
        is_over = self.version == len(EDITS)
        if is_over and batch_idx == self.changed_at + STEPS_AFTER and not trainer.is_global_zero:
            self.revacnn._processes._worker.begin_batch = fail  # type: ignore[union-attr, method-assign]
        is_time = batch_idx >= self.changed_at + STEPS_AFTER * (3 if is_over else 1)
        if trainer.is_global_zero and self.left and self.pending is None and is_time:
            self.pending = self.revacnn.steer(self.left.pop(0))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if self.pending is not None and self.pending.reply is not None:
            reply, self.pending = self.pending.reply, None
            at = getattr(reply, "step", -1)
            self.outcomes.append([type(reply).__name__, getattr(reply, "reason", ""), at])
        session = self.revacnn._session
        if session is not None:
            self.alerts = [alert.text for alert in session._alerts.shown]
        is_done = trainer.is_global_zero and not self.left and self.pending is None
        votes = torch.tensor(int(is_done))
        distributed.all_reduce(votes)
        trainer.should_stop = bool(votes)

    def check(self, trainer: Any, pl_module: Any) -> None:
        """Compare the rows that were frozen since the last edit with those at that edit."""
        now = tensors_of(pl_module, trainer.optimizers[0])
        for name, value in self.before.items():
            layer = name.partition(".")[0].replace("norm", "conv1")
            frozen = self.frozen.get(layer, [])
            rows = [i for i in range(len(value)) if i not in frozen]
            if not torch.equal(now[name][frozen], value[frozen]):
                self.moved.append(f"{name} of frozen filters has changed")
            if rows and torch.equal(now[name][rows], value[rows]):
                self.moved.append(f"{name} of other filters has not changed")
        self.before = now


def fail(*_: Any) -> None:
    raise RuntimeError(ERROR)


def train_alone(edits: dict[int, Any], steps: int) -> dict[str, Tensor]:
    """Train in one process, with the same edits before the same batches."""
    model = FrozenNet()
    optimizer = model.configure_optimizers()
    editor = Editor(model, [optimizer])
    images, labels = loader(BATCHES, SIZE).dataset.tensors  # type: ignore[attr-defined]
    for step in range(steps):
        if step in edits:
            editor.apply(edits[step], ForwardProbe([lambda: model(images[:2].double())]))
        rows = slice(step * SIZE, (step + 1) * SIZE)
        optimizer.zero_grad()
        model.training_step((images[rows], labels[rows]), step).backward()
        optimizer.step()
    return tensors_of(model, optimizer)


def run(folder: Path) -> None:
    agreement.IDLE_SECONDS_BETWEEN = 0.02  # no viewer is attached
    revacnn, module = ReVACNN(), FrozenNet()
    script = Script(revacnn)
    strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    trainer = make_trainer(folder, strategy, [revacnn, script], use_distributed_sampler=False)
    data = loader(BATCHES, SIZE).dataset
    sampler = ProcessShareSampler(BATCHES * SIZE)  # Lightning's own would shuffle
    trainer.fit(module, DataLoader(data, batch_size=SIZE // 2, sampler=sampler))
    found = tensors_of(module, trainer.optimizers[0])
    report = {
        "moved": script.moved,
        "outcomes": script.outcomes,
        "alerts": script.alerts,
        "version": script.version,
        "frozen": script.frozen,
        "step": trainer.global_step,
    }
    if trainer.is_global_zero:
        steps = [step for _, _, step in script.outcomes if step >= 0]
        alone = train_alone(dict(zip(steps, EDITS, strict=True)), trainer.global_step)
        report["difference"] = max(
            float((found[name] - value).abs().max() / value.abs().max())
            for name, value in alone.items()
        )
    (folder / f"process{trainer.global_rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    run(Path(sys.argv[1]))
