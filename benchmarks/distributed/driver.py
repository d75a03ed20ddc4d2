"""A training in several ranks whose first one requests edits, and what each rank measures."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader

from benchmarks.distributed.networks import forward_batch
from revacnn_lightning import ReVACNN
from revacnn_lightning.runtime.ranks.data_parallel_rewrapper import DataParallelRewrapper
from revacnn_lightning.runtime.ranks.processes import FitProcessCoordinator

__all__ = [
    "EditingCallback",
    "ScriptedRequests",
    "make_editing_callback",
    "make_trainer",
    "median_ms",
    "train_in_processes",
]


class EditingCallback(pl.Callback):
    """Requests edits in the first process, and writes what a run shows when it ends.

    Args:
        revacnn: the callback.
        folder: of the results.
        next_request: returns the request before a batch, or None; it is called when no other one
            is pending.
        compare: whether to compare all processes after each edit.
    """

    def __init__(
        self,
        revacnn: ReVACNN,
        folder: Path,
        next_request: Callable[[int, Any], Any] = lambda *_: None,
        *,
        compare: bool = False,
    ) -> None:
        self.revacnn, self.folder = revacnn, folder
        self.next_request, self.compare = next_request, compare
        self.pending: Any = None
        self.applied: list[tuple[int, str, float]] = []  # batch, kind, seconds
        self.refused: list[str] = []
        self.compared = self.different = 0
        self.version = 0
        self.times: list[float] = []  # of the steps
        self.costs: list[float] = []  # of agreement
        self.wraps: list[float] = []
        self.last = time.perf_counter()

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        for kind, name in (
            (FitProcessCoordinator, "begin_batch"),
            (FitProcessCoordinator, "resume_all_ranks"),
        ):
            time_method(kind, name, self.costs)
        time_method(DataParallelRewrapper, "update", self.wraps)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        editor = self.revacnn._editor
        assert editor is not None
        if self.compare and editor.version != self.version:
            self.version = editor.version
            self.compared += 1
            self.different += not is_same_everywhere(pl_module, trainer.optimizers)
        if self.pending is not None and self.pending[1].reply is not None:
            self.note_reply(*self.pending)
            self.pending = None
        if trainer.is_global_zero and self.pending is None:
            body = self.next_request(args[1], pl_module)
            if body is not None:
                self.pending = (type(body).__name__, self.revacnn.steer(body))

    def note_reply(self, kind: str, pending: Any) -> None:
        reply = pending.reply
        if hasattr(reply, "plan"):
            self.applied.append((reply.step, kind, reply.seconds))
        elif hasattr(reply, "reason"):
            self.refused.append(f"{kind}: {reply.reason}")

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        now = time.perf_counter()
        self.times.append(now - self.last)
        self.last = now

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        result = {
            "applied": self.applied, "refused": self.refused, "compared": self.compared,
            "different": self.different, "times": self.times, "costs": self.costs,
            "wraps": [seconds for seconds in self.wraps if seconds > 1e-3],
        }  # fmt: skip
        path = self.folder / f"process{trainer.global_rank}.json"
        path.write_text(json.dumps(result))
        if trainer.is_global_zero:
            torch.save(pl_module.state_dict(), self.folder / "weights.pt")


def time_method(kind: type, name: str, seconds: list[float]) -> None:
    """Let a method of a class append how long each call takes."""
    method = getattr(kind, name)

    def measured(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            seconds.append(time.perf_counter() - start)

    setattr(kind, name, measured)


def is_same_everywhere(module: nn.Module, optimizers: Sequence[Any]) -> bool:
    """Return whether all processes have the same tensors, bit for bit: they are compared whole."""
    tensors = [*module.parameters(), *module.buffers()]
    for optimizer in optimizers:
        for parameter in module.parameters():
            state = optimizer.state.get(parameter, {})
            tensors += [v for _, v in sorted(state.items()) if isinstance(v, Tensor)]
    own = torch.cat([t.detach().contiguous().reshape(-1).view(torch.uint8) for t in tensors])
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(distributed.get_world_size())]
    distributed.all_gather(sizes, torch.tensor([len(own)]))
    if len({int(size) for size in sizes}) > 1:
        return False
    first = own.clone()
    distributed.broadcast(first, 0)
    outcome = torch.tensor([int(torch.equal(first, own))])
    distributed.all_reduce(outcome, distributed.ReduceOp.MIN)
    return bool(outcome)


def train_in_processes(
    module: pl.LightningModule,
    data: DataLoader[Any],
    folder: Path,
    processes: int,
    driver: EditingCallback,
    callbacks: Sequence[pl.Callback] = (),
    **options: Any,
) -> list[dict[str, Any]]:
    """Train in new processes; return what the driver of each has written."""
    folder.mkdir(parents=True, exist_ok=True)
    driver.folder = folder
    driver.revacnn.prepare(module)
    resume = options.pop("resume", None)
    # Processes are compared right after an edit: afterwards, each one's batch changes its buffers.
    both = [driver.revacnn, driver] if driver.compare else [driver, driver.revacnn]
    trainer = make_trainer(folder, processes, [*both, *callbacks], **options)
    trainer.fit(module, data, ckpt_path=resume)
    files = [folder / f"process{rank}.json" for rank in range(processes)]
    return [json.loads(file.read_text()) for file in files if file.exists()]


def make_trainer(
    folder: Path, processes: int, callbacks: Sequence[pl.Callback], **options: Any
) -> pl.Trainer:
    """Return a Trainer that starts new processes."""
    options = {"max_epochs": 1, "strategy": "ddp_fork", **options}
    return pl.Trainer(
        accelerator="cpu", devices=processes, logger=False,
        enable_checkpointing=any(isinstance(each, ModelCheckpoint) for each in callbacks),
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        callbacks=list(callbacks), use_distributed_sampler=False, **options,
    )  # fmt: skip


def make_editing_callback(folder: Path, *args: Any, **options: Any) -> EditingCallback:
    return EditingCallback(ReVACNN(forward=forward_batch), folder, *args, **options)


class ScriptedRequests:
    """The requests of a script, one after the other, each at its batch or as soon as possible."""

    def __init__(self, script: dict[int, Any]) -> None:
        self.left = list(script.items())

    def __call__(self, batch: int, module: Any) -> Any:
        if self.left and batch >= self.left[0][0] and module.current_epoch == 0:
            return self.left.pop(0)[1]
        return None


def median_ms(seconds: Sequence[float]) -> float | str:
    """Return the median in milliseconds; "" if there is none."""
    return statistics.median(seconds) * 1e3 if seconds else ""
