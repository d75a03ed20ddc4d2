"""The same edits in several ranks and in one process with the same global batch.

The weights at least 50 steps after the last edit are compared, relative to the largest weight of
each tensor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.distributed.driver import (
    ScriptedRequests,
    make_editing_callback,
    train_in_processes,
)
from benchmarks.distributed.networks import ClassifierModule, make_loader, plain_net
from benchmarks.report import Report
from revacnn_lightning import AddFilters, Freeze, InsertLayer, Redo, RemoveFilters, Undo

__all__ = ["compare_with_one_process"]

STEPS = 50
EDITED = 1_000  # batches before, during which the edits are made
# Requests by batch.
SCRIPT: dict[int, Any] = {
    4: AddFilters("net.0", 2),
    10: RemoveFilters("net.2", [1, 4]),
    16: Freeze("net.2", [0]),
    20: InsertLayer("net.2", "dirac"),  # a residual block has batch norms
    26: AddFilters("net.2", 1, split_from=2),
    32: Undo(1),
    38: Redo(1),
}


def compare_with_one_process(report: Report, processes: int, folder: Path) -> None:
    """Compare the weights with those of one process, with the edits before the same batches."""
    several, one = ClassifierModule(plain_net).double(), ClassifierModule(plain_net).double()
    size = 4 * processes
    data = make_loader(EDITED + STEPS, size, torch.float64, processes)
    [first, *_] = train_in_processes(
        several,
        data,
        folder / "several",
        processes,
        make_editing_callback(folder, ScriptedRequests(SCRIPT)),
    )
    bodies = iter(SCRIPT.values())
    steps = {step: next(bodies) for step, _, _ in first["applied"]}
    driver = make_editing_callback(folder, lambda batch, _: steps.get(batch))
    [single] = train_in_processes(
        one, make_loader(EDITED + STEPS, size, torch.float64), folder / "one", 1, driver
    )
    is_before_last = bool(steps) and max(steps) <= EDITED
    same_steps = is_before_last and [step for step, _, _ in single["applied"]] == list(steps)
    weights, expected = several.state_dict(), one.state_dict()
    difference = max(
        float((weights[name] - value).abs().max() / value.abs().max())
        if name in weights and weights[name].shape == value.shape
        else float("inf")
        for name, value in expected.items()
        if value.numel()
    )
    name = f"{processes} processes against one"
    report.add_row(name, len(first["applied"]), "", "", difference)
    report.check_at_least(f"{name}: edits", len(first["applied"]) * same_steps, len(SCRIPT))
    report.check_at_most(f"{name}: relative difference", difference, 1e-6)
