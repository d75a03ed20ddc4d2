"""The edits of a run that are in force, as data: appended, undone, and stored in checkpoints.

An entry is an `EditPlan` (plain JSON-able data) and, for the newest ones, the record of what the
edit removed, from which it can be undone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from torch import nn

from revacnn_lightning.errors import SteeringError
from revacnn_lightning.steering.execution import executor
from revacnn_lightning.steering.execution.executor import UndoneEdit, UndoRecord
from revacnn_lightning.steering.execution.tensor_edits import ChangeRecord
from revacnn_lightning.steering.planning.plan import EditPlan

__all__ = ["Journal", "JournalEntry"]

# The version of what `Journal.to_data` returns. Checkpoints store it, so its names never change:
# the keys below, the fields of `EditPlan` and of the edit requests, and the keys of change records.
FORMAT = 1
# How many of the newest edits can be undone. Each costs the memory of what it removed.
UNDOABLE = 32


@dataclass
class JournalEntry:
    """One applied edit. ``undo`` is None once the edit is too old to be undone."""

    plan: EditPlan
    undo: UndoRecord | None


@dataclass
class Journal:
    """The edits of a run that are in force, oldest first.

    ``version`` counts every edit, undo and redo, so it never decreases. ``undone`` holds the edits
    that can be redone, the one that was undone last at the end.
    """

    entries: list[JournalEntry] = field(default_factory=list)
    version: int = 0
    undone: list[UndoneEdit] = field(default_factory=list)

    @property
    def undoable(self) -> int:
        """The number of newest edits that can be undone."""
        count = 0
        for entry in reversed(self.entries):
            if entry.undo is None:
                break
            count += 1
        return count

    def append(self, plan: EditPlan, undo: UndoRecord) -> None:
        """Record an applied edit. The undone edits can no longer be redone."""
        self.undone.clear()
        self._append(plan, undo)
        self.version += 1

    def restore(self, redone: Sequence[UndoRecord]) -> None:
        """Record that the last undone edits were redone, given in this order."""
        for undo in redone:
            self._append(self.undone.pop().plan, undo)
        self.version += 1

    def _append(self, plan: EditPlan, undo: UndoRecord) -> None:
        if self.entries and self.entries[-1].undo is not None:
            self.entries[-1].undo.groups_before = None
        self.entries.append(JournalEntry(plan, undo))
        for old in self.entries[:-UNDOABLE]:
            old.undo = None

    def remove_newest(self, added: Sequence[list[ChangeRecord]]) -> None:
        """Move the newest edits, which were undone, to `undone`.

        Args:
            added: what each of them had added, newest first.
        """
        for records in added:
            self.undone.append(UndoneEdit(self.entries.pop().plan, records))
        self.version += 1

    def to_data(self) -> dict[str, Any]:
        """Return dicts, lists, strings, numbers and tensors: they load under ``weights_only=True``.

        Everything except ``records`` and ``undone_records`` (what undo and redo need) is JSON-able.
        """
        return {
            "format": FORMAT,
            "version": self.version,
            "plans": [msgspec.to_builtins(entry.plan) for entry in self.entries],
            "records": [entry.undo and entry.undo.changes for entry in self.entries],
            "undone": [msgspec.to_builtins(edit.plan) for edit in self.undone],
            "undone_records": [edit.added for edit in self.undone],
        }

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Journal:
        """Return the journal that `to_data` returned the data of.

        Raises:
            SteeringError: the data is not that of a journal.
        """
        try:
            if data["format"] != FORMAT:
                raise SteeringError(
                    f"the journal has format {data['format']}, but this version reads format "
                    f"{FORMAT}; update revacnn-lightning"
                )
            plans = [msgspec.convert(plan, EditPlan) for plan in data["plans"]]
            records: Sequence[Any] = data.get("records") or [None] * len(plans)
            entries = [
                JournalEntry(plan, None if changes is None else UndoRecord(changes))
                for plan, changes in zip(plans, records, strict=True)
            ]
            undone = [msgspec.convert(plan, EditPlan) for plan in data.get("undone", [])]
            added: Sequence[Any] = data.get("undone_records") or []
            if len(added) != len(undone):  # a script holds no tensors
                undone = []
            edits = [UndoneEdit(plan, each) for plan, each in zip(undone, added, strict=False)]
            return cls(entries, data["version"], edits)
        except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
            raise SteeringError(f"this is not a journal of edits: {error}") from error

    def replay(self, model: nn.Module) -> None:
        """Perform the edits on a fresh, unedited model, whose weights are loaded afterwards.

        Raises:
            SteeringError: the model is not the one the journal was made with; it is unchanged.
        """
        replayed = executor.replay(model, [entry.plan for entry in self.entries])
        for entry, record in zip(self.entries, replayed, strict=True):
            if entry.undo is not None:
                entry.undo.removed_layers = record.removed_layers
