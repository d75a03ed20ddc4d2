"""The edits of a run that are in force, as data: appended, undone, and stored in checkpoints.

An entry is an `EditPlan` (plain JSON-able data) and, for the newest ones, the record of what the
edit removed, from which it can be undone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import msgspec
from torch import nn
from torch.optim import Optimizer

from revacnn_lightning.errors import SteeringError
from revacnn_lightning.protocol.access_messages import RequestOutcome
from revacnn_lightning.steering.edit_mark import update_edit_mark
from revacnn_lightning.steering.execution.copy_edits import revert_on_copies
from revacnn_lightning.steering.execution.executor import UndoneEdit, UndoRecord, revert
from revacnn_lightning.steering.execution.journal_replay import replay_plans
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.holders.model_copy import ModelPartCopy
from revacnn_lightning.steering.planning.plan import EditPlan

__all__ = ["Journal", "JournalEntry", "change_structure"]

# The version of what `Journal.to_data` returns. Checkpoints store it, so its names never change:
# the keys below, the fields of `EditPlan` and of the edit requests, and the keys of change records.
FORMAT = 1
# How many of the newest edits can be undone. Each costs the memory of what it removed.
UNDOABLE = 32
MAX_REQUESTS = 500  # that are kept


@dataclass
class JournalEntry:
    """One applied edit.

    Attributes:
        undo: None once the edit is too old to be undone.
        removed_layers: the modules it removed, by name. They are kept as long as the entry: the
            structure of an older checkpoint is restored with them.
    """

    plan: EditPlan
    undo: UndoRecord | None
    removed_layers: dict[str, nn.Module] = field(default_factory=dict)

    @property
    def structure_undo(self) -> UndoRecord:
        """What reverts the edit; without the values of restored entries if it is too old."""
        return self.undo or UndoRecord.of_structure(self.plan, self.removed_layers)


@dataclass
class Journal:
    """The edits of a run that are in force, oldest first.

    ``version`` counts every edit, undo and redo, so it never decreases. ``undone`` holds the edits
    that can be redone, the one that was undone last at the end.
    """

    entries: list[JournalEntry] = field(default_factory=list)
    version: int = 0
    undone: list[UndoneEdit] = field(default_factory=list)
    requests: list[RequestOutcome] = field(default_factory=list)

    @property
    def undoable(self) -> int:
        """The number of newest edits that can be undone."""
        count = 0
        for entry in reversed(self.entries):
            if entry.undo is None:
                break
            count += 1
        return count

    def without_values(self) -> Journal:
        """Return a journal for a copy of the model: it restores the structure, but no values."""
        entries = [JournalEntry(e.plan, None, deepcopy(e.removed_layers)) for e in self.entries]
        return Journal(entries, self.version)

    @property
    def changes_structure(self) -> bool:
        """Whether the edits change more than values: sizes, attributes or layers."""
        plans = [entry.plan for entry in self.entries]
        return any(plan.tensors or plan.attributes or plan.layers for plan in plans)

    def append(self, plan: EditPlan, undo: UndoRecord) -> None:
        """Record an applied edit. The undone edits can no longer be redone."""
        self.undone.clear()
        self._append(plan, undo)
        self.version += 1

    def record_redone(self, redone: Sequence[UndoRecord]) -> None:
        """Record that the last undone edits were redone, given in this order."""
        for undo in redone:
            self._append(self.undone.pop().plan, undo)
        self.version += 1

    def _append(self, plan: EditPlan, undo: UndoRecord) -> None:
        if self.entries and self.entries[-1].undo is not None:
            self.entries[-1].undo.groups_before = None
        self.entries.append(JournalEntry(plan, undo, undo.removed_layers))
        for old in self.entries[:-UNDOABLE]:
            old.undo = None

    def record_undone(self, undone: Sequence[UndoneEdit]) -> None:
        """Move the newest edits, which were undone, to `undone`.

        Args:
            undone: these edits, newest first.
        """
        del self.entries[len(self.entries) - len(undone) :]
        self.undone += undone
        self.version += 1

    def restore_function(self) -> Callable[[], None]:
        """Return a function that makes the edits that are in force now those of the journal."""
        entries, version, undone = [*self.entries], self.version, [*self.undone]
        undos = [entry.undo for entry in entries]
        groups = [None if undo is None else undo.groups_before for undo in undos]

        def restore() -> None:
            self.entries, self.version, self.undone = entries, version, undone
            for entry, undo, before in zip(entries, undos, groups, strict=True):
                entry.undo = undo
                if undo is not None:
                    undo.groups_before = before

        return restore

    def record_request(self, outcome: RequestOutcome) -> None:
        """Record who has requested what. It changes no edit.

        The newest ones are kept. Refused ones give way first, so that they displace no others.
        """
        self.requests.append(outcome)
        if len(self.requests) > MAX_REQUESTS:
            refused = (i for i, one in enumerate(self.requests) if one.state == "refused")
            del self.requests[next(refused, 0)]

    def forget_records(self) -> None:
        """Forget what undo and redo need: the edits so far can no longer be undone."""
        self.undone.clear()
        for entry in self.entries:
            entry.undo = None

    def to_data(self) -> dict[str, Any]:
        """Return dicts, lists, strings, numbers and tensors: they load under ``weights_only=True``.

        Everything except ``records`` and ``undone_records`` (what undo and redo need) is JSON-able.
        """
        return {
            "format": FORMAT,
            "version": self.version,
            "plans": [_plan_data(entry.plan) for entry in self.entries],
            "records": [entry.undo and entry.undo.changes for entry in self.entries],
            "copies": [
                {name: record.changes for name, record in entry.undo.copies.items()}
                if entry.undo
                else {}
                for entry in self.entries
            ],
            "undone": [_plan_data(edit.plan) for edit in self.undone],
            "undone_records": [edit.added for edit in self.undone],
            "requests": [msgspec.to_builtins(one) for one in self.requests],
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
            copies: Sequence[Any] = data.get("copies") or [{}] * len(plans)
            entries = [
                JournalEntry(plan, None if changes is None else _undo_record(changes, copied))
                for plan, changes, copied in zip(plans, records, copies, strict=True)
            ]
            undone = [msgspec.convert(plan, EditPlan) for plan in data.get("undone", [])]
            added: Sequence[Any] = data.get("undone_records") or []
            if len(added) != len(undone):  # a script holds no tensors
                undone = []
            edits = [UndoneEdit(plan, each) for plan, each in zip(undone, added, strict=False)]
            requests = msgspec.convert(data.get("requests", []), list[RequestOutcome])
            return cls(entries, data["version"], edits, requests)
        except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
            raise SteeringError(f"this is not a journal of edits: {error}") from error

    def replay(self, model: nn.Module) -> None:
        """Perform the edits on a fresh, unedited model, whose weights are loaded afterwards.

        Raises:
            SteeringError: the model is not the one the journal was made with; it is unchanged.
        """
        change_structure(model, Journal(), self)


def change_structure(
    model: nn.Module,
    present: Journal,
    target: Journal,
    optimizers: Sequence[Optimizer] = (),
    check: Callable[[], object] | None = None,
    copies: Sequence[ModelPartCopy] = (),
) -> None:
    """Give a model the structure of another journal. Its weights are loaded afterwards.

    Edits at the beginning of both journals are kept; the others of ``present`` are reverted and
    those of ``target`` are performed, with the state of the optimizers.

    Args:
        check: a function that is called at the end. If it raises an exception, nothing is changed.
        copies: copies of the model that are not registered in it, which get the structure, too.

    Raises:
        SteeringError: the model does not have the structure of ``present``, or ``target`` is the
            journal of another model; nothing was changed.
    """
    shared = _count_shared(present, target)
    with Transaction() as tx:
        for entry in reversed(present.entries[shared:]):
            try:
                revert(tx, model, entry.plan, optimizers, entry.structure_undo)
                revert_on_copies(tx, model, entry.plan, copies, entry.structure_undo)
            except (AttributeError, IndexError, RuntimeError) as error:
                raise SteeringError(
                    f"the edit {entry.plan.title!r} cannot be reverted: {error}"
                ) from error
        plans = [entry.plan for entry in target.entries[shared:]]
        records = replay_plans(tx, model, plans, optimizers, copies, first_number=shared + 1)
        if check is not None:
            check()
    update_edit_mark(model, is_edited=target.changes_structure)
    removed = [entry.removed_layers for entry in present.entries[:shared]]
    removed += [record.removed_layers for record in records]
    for entry, removed_layers in zip(target.entries, removed, strict=True):
        entry.removed_layers = removed_layers
        if entry.undo is not None:
            entry.undo.removed_layers = removed_layers


def _plan_data(plan: EditPlan) -> dict[str, Any]:
    """Return a plan as data; only the changes of copies have an origin."""
    data: dict[str, Any] = msgspec.to_builtins(plan)
    for kind in ("values", "tensors", "attributes", "layers"):
        for change in data[kind]:
            if not change["origin"]:
                del change["origin"]
    return data


def _undo_record(changes: list[Any], copies: dict[str, list[Any]]) -> UndoRecord:
    copied = {name: UndoRecord(of_copy) for name, of_copy in copies.items()}
    return UndoRecord(changes, copies=copied)


def _count_shared(present: Journal, target: Journal) -> int:
    """Return how many edits at the beginning of both journals are the same."""
    pairs = zip(present.entries, target.entries, strict=False)
    different = (i for i, (one, other) in enumerate(pairs) if one.plan != other.plan)
    return next(different, min(len(present.entries), len(target.entries)))
