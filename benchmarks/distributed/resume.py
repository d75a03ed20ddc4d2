"""A resume from the checkpoint of an edited run in as many ranks, in two and one: the weights."""

from __future__ import annotations

from pathlib import Path

import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from benchmarks.distributed.driver import Scripted, new_driver, train
from benchmarks.distributed.networks import Module, loader, normalized_net
from benchmarks.report import Report
from revacnn_lightning import AddFilters, Freeze, InsertLayer, RemoveFilters

__all__ = ["resumed"]

BATCHES = 100  # of an epoch; the edits are made in the first epoch


def resumed(report: Report, processes: int, folder: Path) -> None:
    """Edit in the first epoch, resume from its end."""
    saving = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
    whole = Module(normalized_net)
    requests = {
        4: AddFilters("net.0", 2), 12: RemoveFilters("net.6", [1, 4]), 18: Freeze("net.6", [0]),
        24: InsertLayer("net.6"),
    }  # fmt: skip
    data = loader(BATCHES * processes, 4, torch.float32)
    [first, *_] = train(
        whole,
        data,
        folder / "whole",
        processes,
        new_driver(folder, Scripted(requests)),
        [saving],
        max_epochs=2,
    )
    checkpoint = folder / "epoch=0.ckpt"
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    for count in sorted({processes, 2, 1}, reverse=True):
        again = Module(normalized_net)
        train(  # in fewer ranks, the batches would be others: the weights are only loaded
            again, data, folder / f"resumed{count}", count, new_driver(folder),
            max_epochs=2 if count == processes else 1, resume=checkpoint,
        )  # fmt: skip
        expected = whole.state_dict() if count == processes else saved
        weights = again.state_dict()
        different = sum(
            not torch.equal(weights[name], value) if name in weights else 1
            for name, value in expected.items()
            if value.numel()
        )
        name = f"resumed in {count} of {processes} processes"
        report.add_row(name, len(first["applied"]), different, "", "")
        report.check_at_least(f"{name}: edits", len(first["applied"]), len(requests))
        report.check_at_most(f"{name}: different tensors", different, 0)
