"""The resolved edits of a run: replayed on a fresh model, undone, stored in checkpoints.

An entry is an `EditPlan` (plain JSON-able data) and, for the newest ones, the records of what the
edit took away, from which it can be undone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import torch
from torch import nn

from revacnn_lightning.errors import SteeringError
from revacnn_lightning.steering import surgery
from revacnn_lightning.steering.plan import EditPlan
from revacnn_lightning.steering.surgery import Record
from revacnn_lightning.steering.transaction import Transaction

__all__ = ["Entry", "Journal", "perform"]

FORMAT = 1
# How many of the newest edits can be undone. Each costs the memory of what it removed.
UNDOABLE = 32


@dataclass
class Entry:
    """One edit that was applied. ``records`` is None once it is too old to be undone."""

    plan: EditPlan
    records: list[Record] | None


@dataclass
class Journal:
    """The edits of a run that are in force, oldest first.

    ``version`` counts every edit and every undo, so it only ever grows.
    """

    entries: list[Entry] = field(default_factory=list)
    version: int = 0

    def append(self, plan: EditPlan, records: list[Record]) -> None:
        self.entries.append(Entry(plan, records))
        self.version += 1
        for old in self.entries[:-UNDOABLE]:
            old.records = None

    def to_data(self) -> dict[str, Any]:
        """Dicts, lists, strings, numbers and tensors: loads under ``weights_only=True``.

        All but ``records`` (what undo needs) is JSON-able.
        """
        return {
            "format": FORMAT,
            "version": self.version,
            "plans": [msgspec.to_builtins(entry.plan) for entry in self.entries],
            "records": [entry.records for entry in self.entries],
        }

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Journal:
        """The journal that `to_data` made the data of.

        Raises:
            SteeringError: the data is not that of a journal.
        """
        try:
            if data["format"] != FORMAT:
                raise SteeringError(
                    f"the journal has format {data['format']}, this version reads {FORMAT}"
                )
            plans = [msgspec.convert(plan, EditPlan) for plan in data["plans"]]
            kept = data.get("records") or [None] * len(plans)
            return cls([Entry(p, r) for p, r in zip(plans, kept, strict=True)], data["version"])
        except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
            raise SteeringError(f"this is not a journal of edits: {error}") from error

    def replay(self, model: nn.Module) -> None:
        """Repeat the edits on a fresh, unedited model. Its weights are to be loaded afterwards.

        Raises:
            SteeringError: the model is not the one the journal was made with; it is unchanged.
        """
        with Transaction() as tx:
            for number, entry in enumerate(self.entries, 1):
                try:
                    perform(tx, model, entry.plan, [], torch.Generator().manual_seed(number))
                except (AttributeError, IndexError, RuntimeError) as error:
                    raise SteeringError(
                        f"edit {number} of the journal ({entry.plan.title}) does not fit this "
                        f"model: {error}"
                    ) from error


def perform(
    tx: Transaction,
    model: nn.Module,
    plan: EditPlan,
    optimizers: Any,
    generator: torch.Generator,
) -> list[Record]:
    """Do everything a plan says, in its order; returns one record per change, in that order."""
    records = []
    for value in plan.values:
        records.append(surgery.change_values(tx, model, value, optimizers, generator))
    for edit in plan.tensors:
        records.append(surgery.resize(tx, model, edit, optimizers, generator))
    for size in plan.attributes:
        surgery.set_size(tx, model, size)
    return records


def unperform(
    tx: Transaction, model: nn.Module, plan: EditPlan, optimizers: Any, records: list[Record]
) -> None:
    """Undo everything a plan did, newest first."""
    for size in reversed(plan.attributes):
        surgery.set_size(tx, model, size, undo=True)
    of_values, of_tensors = records[: len(plan.values)], records[len(plan.values) :]
    for edit, record in reversed(list(zip(plan.tensors, of_tensors, strict=True))):
        surgery.unresize(tx, model, edit, optimizers, record)
    for value, record in reversed(list(zip(plan.values, of_values, strict=True))):
        surgery.restore_values(tx, model, value, optimizers, record)
