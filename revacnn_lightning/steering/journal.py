"""The resolved edits of a run: replayed on a fresh model, undone, stored in checkpoints.

An entry is an `EditPlan` (plain JSON-able data) and, for the newest ones, the records of what the
edit took away, from which it can be undone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import torch
from torch import nn
from torch.optim import Optimizer

from revacnn_lightning.errors import SteeringError
from revacnn_lightning.steering.execution import tensor_edits as surgery
from revacnn_lightning.steering.execution.layer_edits import change_layer, revert_layer_change
from revacnn_lightning.steering.execution.tensor_edits import Record
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.planning.plan import EditPlan
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups

__all__ = ["Journal", "JournalEntry", "UndoRecord", "perform", "script", "text", "revert"]

FORMAT = 1
# How many of the newest edits can be undone. Each costs the memory of what it removed.
UNDOABLE = 32


@dataclass
class UndoRecord:
    """What an edit took away: one record per change, in the plan's order, and removed layers.

    The layers are objects of this process; in another one, `Journal.replay` finds them again.
    """

    records: list[Record] = field(default_factory=list)
    layers: dict[str, nn.Module] = field(default_factory=dict)
    # what was known of the structure before the edit; kept of the newest edit only
    channels: ChannelGroups | None = None


@dataclass
class JournalEntry:
    """One edit that was applied. ``taken`` is None once it is too old to be undone."""

    plan: EditPlan
    taken: UndoRecord | None


@dataclass
class Journal:
    """The edits of a run that are in force, oldest first.

    ``version`` counts every edit and every undo, so it only ever grows.
    """

    entries: list[JournalEntry] = field(default_factory=list)
    version: int = 0

    @property
    def undoable(self) -> int:
        """How many of the newest edits can be taken back."""
        count = 0
        for entry in reversed(self.entries):
            if entry.taken is None:
                break
            count += 1
        return count

    def append(self, plan: EditPlan, taken: UndoRecord) -> None:
        if self.entries and self.entries[-1].taken is not None:
            self.entries[-1].taken.channels = None
        self.entries.append(JournalEntry(plan, taken))
        self.version += 1
        for old in self.entries[:-UNDOABLE]:
            old.taken = None

    def to_data(self) -> dict[str, Any]:
        """Dicts, lists, strings, numbers and tensors: loads under ``weights_only=True``.

        All but ``records`` (what undo needs) is JSON-able.
        """
        return {
            "format": FORMAT,
            "version": self.version,
            "plans": [msgspec.to_builtins(entry.plan) for entry in self.entries],
            "records": [entry.taken and entry.taken.records for entry in self.entries],
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
            entries = [
                JournalEntry(plan, None if records is None else UndoRecord(records))
                for plan, records in zip(plans, kept, strict=True)
            ]
            return cls(entries, data["version"])
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
                    generator = torch.Generator().manual_seed(number)
                    found = perform(tx, model, entry.plan, [], generator)
                except (AttributeError, IndexError, RuntimeError) as error:
                    raise SteeringError(
                        f"edit {number} of the journal ({entry.plan.title}) does not fit this "
                        f"model: {error}"
                    ) from error
                if entry.taken is not None:
                    entry.taken.layers = found.layers


def perform(
    tx: Transaction,
    model: nn.Module,
    plan: EditPlan,
    optimizers: Sequence[Optimizer],
    generator: torch.Generator,
) -> UndoRecord:
    """Do everything a plan says, in its order, but freezing, which touches no tensor."""
    taken = UndoRecord()
    for value in plan.values:
        taken.records.append(surgery.change_values(tx, model, value, optimizers, generator))
    for edit in plan.tensors:
        taken.records.append(surgery.resize(tx, model, edit, optimizers, generator))
    for size in plan.attributes:
        surgery.set_size(tx, model, size)
    for layer in plan.layers:
        record, removed = change_layer(tx, model, layer, optimizers, generator)
        taken.records.append(record)
        if removed is not None:
            taken.layers[layer.host] = removed
    return taken


def revert(
    tx: Transaction,
    model: nn.Module,
    plan: EditPlan,
    optimizers: Sequence[Optimizer],
    taken: UndoRecord,
) -> None:
    """Undo everything a plan did, newest first."""
    records = iter(reversed(taken.records))
    for layer in reversed(plan.layers):
        removed = taken.layers.get(layer.host)
        revert_layer_change(tx, model, layer, optimizers, next(records), removed)
    for size in reversed(plan.attributes):
        surgery.set_size(tx, model, size, undo=True)
    for edit in reversed(plan.tensors):
        surgery.revert_resize(tx, model, edit, optimizers, next(records))
    for value in reversed(plan.values):
        surgery.restore_values(tx, model, value, optimizers, next(records))


# -------------------------------------------------------------------- for people


def text(journal: Journal) -> str:
    """The journal as lines to read: number, title, parameters, reason."""
    if not journal.entries:
        return "no edits"
    lines = []
    for number, entry in enumerate(journal.entries, 1):
        plan = entry.plan
        growth = plan.parameters_after - plan.parameters_before
        lines.append(f"{number:4}  {plan.title}  ({growth:+d} parameters)")
        lines += [f"      {each}" for each in (plan.why, *plan.notes) if each]
    return "\n".join(lines)


def script(journal: Journal) -> str:
    """A Python script whose ``edit(model)`` repeats the edits on a fresh, unedited model."""
    data = journal.to_data()
    del data["records"]  # what undo needs; tensors
    plans = data.pop("plans")
    written = [f"    # {plan['title']}\n    {plan!r},\n" for plan in plans]
    return (
        f'"""Repeats {len(plans)} edits on a fresh model; load its weights afterwards."""\n\n'
        "from revacnn_lightning.steering import Journal\n\n"
        "PLANS = [\n" + "".join(written) + "]\n\n\n"
        "def edit(model):\n"
        f"    Journal.from_data({{**{data!r}, 'plans': PLANS}}).replay(model)\n"
    )
