"""Random edits of all kinds during training, undo and redo included.

After each one, all ranks must have the same weights, buffers and optimizer state, bit for bit.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from benchmarks.distributed.driver import (
    EditingCallback,
    make_editing_callback,
    median_ms,
    train_in_processes,
)
from benchmarks.distributed.networks import ClassifierModule, make_loader, normalized_net
from benchmarks.report import Report
from benchmarks.steering_fuzz import Fuzzer
from revacnn_lightning import ControlRun, Redo, Undo

__all__ = ["check_random_edits"]


class RandomRequests(Fuzzer):
    """Random requests for a module; about every sixth one is an undo or a redo."""

    def __init__(self, seed: int, edits: int) -> None:
        self.random = random.Random(seed)
        self.edits = edits
        self.driver: EditingCallback | None = None

    def __call__(self, batch: int, module: Any) -> Any:
        assert self.driver is not None
        if len(self.driver.applied) >= self.edits:
            return ControlRun("stop")  # all processes, before the same batch
        editor, self.model = self.driver.revacnn._editor, module
        assert editor is not None
        if not hasattr(self, "initial_widths"):
            self.initial_widths = {n: m.out_channels for n, m in self._convs()}
        chance = self.random.random()
        if chance < 0.1 and editor.journal.undoable:
            return Undo(1)
        if chance < 0.17 and editor.journal.undone:
            return Redo(1)
        return self.random_request()


def check_random_edits(report: Report, processes: int, edits: int, folder: Path) -> None:
    requests = RandomRequests(0, edits)
    driver = requests.driver = make_editing_callback(folder, requests, compare=True)
    module = ClassifierModule(normalized_net)
    results = train_in_processes(
        module, make_loader(64, 8, torch.float32), folder / "random", processes, driver,
        max_epochs=edits,
    )  # fmt: skip
    first = results[0]
    kinds = Counter(kind for _, kind, _ in first["applied"])
    name = f"random edits, {processes} processes"
    wraps = first["wraps"]
    report.add_row(name, len(first["applied"]), first["different"], median_ms(wraps), "")
    listed = ", ".join(f"{k} {n}" for k, n in sorted(kinds.items()))
    report.add_note(f"{name}: {listed}; {len(first['refused'])} refused")
    report.check_at_least(f"{name}: applied", len(first["applied"]), edits)
    report.check_at_least(f"{name}: compared", first["compared"], edits)
    report.check_at_most(f"{name}: different", max(each["different"] for each in results), 0)
