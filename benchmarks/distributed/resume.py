"""A resume from the checkpoint of an edited run, in as many ranks, in two and in one.

DistributedDataParallel sorts the gradients into buckets: in the first step after it has wrapped the
model in the order of the parameters, from the second step on in the order in which they arrive.
The place of a gradient in its bucket decides in which order gloo adds up those of more than two
ranks. Therefore the first step after a resume rounds differently from that of the run that was not
interrupted, in any training; `check_resume_in_new_buckets` measures by how much, with ReVACNN and
without it. The buckets are the only reason if the run continues bit for bit where

- the buckets stay as they are: with ``find_unused_parameters``;
- the run that was not interrupted makes its wrapper again, at the batch of the resume.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from benchmarks.distributed.driver import (
    ScriptedRequests,
    make_editing_callback,
    make_trainer,
    train_in_processes,
)
from benchmarks.distributed.networks import ClassifierModule, make_loader, normalized_net
from benchmarks.report import Report
from revacnn_lightning import AddFilters, Freeze, InsertLayer, RemoveFilters

__all__ = ["check_resume", "check_resume_in_new_buckets"]

BATCHES = 100  # of an epoch; the edits are made in the first epoch
SAME_BUCKETS = "ddp_fork_find_unused_parameters_true"
NAME = "epoch=0.ckpt"
EDITS = {
    4: AddFilters("net.0", 2), 12: RemoveFilters("net.6", [1, 4]), 18: Freeze("net.6", [0]),
    24: InsertLayer("net.6"),
}  # fmt: skip


class CheckLoadedTensors(pl.Callback):
    """Counts the tensors of each rank that differ from the checkpoint right after loading it.

    Args:
        checkpoint: its path.
        folder: of the counts.
    """

    def __init__(self, checkpoint: Path, folder: Path) -> None:
        self.checkpoint, self.folder = checkpoint, folder

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        saved = torch.load(self.checkpoint, weights_only=True)
        present = {
            "state_dict": pl_module.state_dict(),
            "optimizer_states": [each.state_dict() for each in trainer.optimizers],
        }
        expected = dict(_tensors({name: saved[name] for name in present}))
        result = {"tensors": len(expected), "different": _differing(expected, present)}
        (self.folder / f"loaded{trainer.global_rank}.json").write_text(json.dumps(result))


def check_resume(report: Report, processes: int, folder: Path) -> None:
    """Edit in the first epoch, resume from its end."""
    whole = ClassifierModule(normalized_net)
    data = make_loader(BATCHES * processes, 4, torch.float32)
    driver = make_editing_callback(folder, ScriptedRequests(EDITS))
    first, *_ = train_in_processes(
        whole, data, folder / "whole", processes, driver, [_saving(folder)],
        max_epochs=2, strategy=SAME_BUCKETS,
    )  # fmt: skip
    checkpoint = folder / NAME
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    for count in sorted({processes, 2, 1}, reverse=True):
        again, own = ClassifierModule(normalized_net), folder / f"resumed{count}"
        # In fewer ranks, the batches would be others: the weights are only loaded.
        train_in_processes(
            again, data, own, count, make_editing_callback(folder),
            [CheckLoadedTensors(checkpoint, own)],
            max_epochs=2 if count == processes else 1, resume=checkpoint, strategy=SAME_BUCKETS,
        )  # fmt: skip
        expected = whole.state_dict() if count == processes else saved
        name = f"resumed in {count} of {processes} processes"
        different = _differing(dict(_tensors(expected)), again.state_dict())
        report.add_row(name, len(first["applied"]), different, "", "")
        report.check_at_least(f"{name}: edits", len(first["applied"]), len(EDITS))
        report.check_at_most(f"{name}: different tensors", different, 0)
        if count == processes:
            _check_loaded(report, name, own, processes)


def _check_loaded(report: Report, name: str, folder: Path, processes: int) -> None:
    files = [folder / f"loaded{rank}.json" for rank in range(processes)]
    found = [json.loads(file.read_text()) for file in files]
    report.add_note(f"{name}: {found[0]['tensors']} tensors of weights and optimizer loaded")
    different = sum(each["different"] for each in found)
    report.check_at_most(f"{name}: different tensors after loading, all ranks", different, 0)


class RewrapNetwork(pl.Callback):
    """Makes the wrapper of the network again before the second epoch, as a resume there does."""

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            trainer.strategy.model = pl_module
            gc.collect()  # removes the hooks of the last wrapper
            trainer.strategy.configure_ddp()


def check_resume_in_new_buckets(report: Report, processes: int, folder: Path) -> None:
    """Resume in as many ranks, with the buckets of "ddp", an edited run and one without ReVACNN."""
    differences = {}
    for kind, run in (("without ReVACNN", _run_plain), ("edited", _run_edited)):
        for wraps_again in (False, True):
            own = folder / f"{kind} {wraps_again}"
            whole, callbacks = ClassifierModule(normalized_net), [_saving(own)]
            if wraps_again:
                callbacks.append(RewrapNetwork())
            edits = run(whole, processes, own / "whole", callbacks, None)
            again = ClassifierModule(normalized_net)
            run(again, processes, own / "resumed", [], own / NAME)
            expected = dict(_tensors(whole.state_dict()))
            different = differences[kind, wraps_again] = _differing(expected, again.state_dict())
            name = f"{kind}, resumed in {processes} processes, ddp"
            name += ", wrapped again" if wraps_again else ""
            relative = _relative_difference(whole.state_dict(), again.state_dict())
            report.add_row(name, edits, different, "", relative)
            if wraps_again:
                report.check_at_most(f"{name}: different tensors", different, 0)
            if kind == "edited":
                report.check_at_least(f"{name}: edits", edits, len(EDITS))
    if not differences["without ReVACNN", False]:
        name = f"edited, resumed in {processes} processes, ddp: different tensors"
        report.check_at_most(f"{name}, as without ReVACNN", differences["edited", False], 0)


def _run_plain(
    module: ClassifierModule,
    processes: int,
    folder: Path,
    callbacks: list[pl.Callback],
    resume: Path | None,
) -> int:
    data = make_loader(BATCHES * processes, 4, torch.float32)
    trainer = make_trainer(folder, processes, callbacks, max_epochs=2)
    trainer.fit(module, data, ckpt_path=resume)
    return 0


def _run_edited(
    module: ClassifierModule,
    processes: int,
    folder: Path,
    callbacks: list[pl.Callback],
    resume: Path | None,
) -> int:
    """Edit in the first epoch; return how often."""
    data = make_loader(BATCHES * processes, 4, torch.float32)
    script = ScriptedRequests({} if resume else EDITS)
    first, *_ = train_in_processes(
        module, data, folder, processes, make_editing_callback(folder, script), callbacks,
        max_epochs=2, resume=resume,
    )  # fmt: skip
    return len(first["applied"])


def _saving(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)


def _tensors(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Tensor]]:
    """Yield the tensors of nested dicts and lists, with their keys."""
    if isinstance(values, Tensor):
        if values.numel():
            yield path, values
    elif isinstance(values, dict | list):
        items = values.items() if isinstance(values, dict) else enumerate(values)
        for key, value in items:
            yield from _tensors(value, (*path, key))


def _differing(expected: dict[tuple[Any, ...], Tensor], values: Any) -> int:
    """Return how many of the expected tensors are missing or differ in a bit."""
    found = dict(_tensors(values))
    return sum(
        path not in found or not torch.equal(found[path], value) for path, value in expected.items()
    )


def _relative_difference(expected: dict[str, Tensor], values: dict[str, Tensor]) -> float:
    """Return the largest difference of a tensor, relative to its largest value."""
    return max(
        float((values[name] - value).abs().max() / value.abs().max().clamp(min=1e-12))
        for name, value in expected.items()
        if value.is_floating_point() and value.numel()
    )
