"""Performs every change of an `EditPlan` on a model and its optimizers, and reverts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.optim import Optimizer

from revacnn_lightning.steering.execution.initialization import Initializer
from revacnn_lightning.steering.execution.layer_edits import apply_layer_edit, revert_layer_edit
from revacnn_lightning.steering.execution.module_attributes import (
    apply_attribute_edit,
    revert_attribute_edit,
    update_size_attributes,
)
from revacnn_lightning.steering.execution.replacement import ChangeRecord
from revacnn_lightning.steering.execution.tensor_edits import apply_tensor_edit, revert_tensor_edit
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.execution.value_edits import (
    apply_value_edit,
    copy_random_entries_from_origins,
    revert_value_edit,
)
from revacnn_lightning.steering.planning.plan import EditPlan
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups

__all__ = ["PerformedEdit", "UndoRecord", "UndoneEdit", "perform", "revert"]


@dataclass
class UndoRecord:
    """What an edit removed, from which it is reverted.

    Attributes:
        changes: one record per change, in the order of the plan.
        removed_layers: the removed modules, by name. They are objects of this process;
            `replay_plans` finds them again in another one.
        groups_before: the channel groups before the edit; kept for the newest edit only.
        copies: what the edit removed from copies outside the model, by the name of their holder.
        tensors: the tensors that the edit removed from a container of copies, by name.
    """

    changes: list[ChangeRecord] = field(default_factory=list)
    removed_layers: dict[str, nn.Module] = field(default_factory=dict)
    groups_before: ChannelGroups | None = None
    copies: dict[str, UndoRecord] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of_structure(cls, plan: EditPlan, removed_layers: dict[str, nn.Module]) -> UndoRecord:
        """Return a record that restores the structure only: restored entries become zero."""
        changes: list[ChangeRecord] = [{"data": 0.0} for _ in plan.tensors]
        changes += [{} for _ in plan.layers]
        return cls(changes, removed_layers)


@dataclass
class UndoneEdit:
    """An undone edit that can be redone.

    Attributes:
        added: what it had added when it was undone.
        copies: what it had added to copies outside the model, by the name of their holder.
    """

    plan: EditPlan
    added: list[ChangeRecord]
    copies: dict[str, UndoRecord] = field(default_factory=dict)


@dataclass
class PerformedEdit:
    """An edit that was performed and passed its verification.

    Attributes:
        plan: what was performed; its columns may differ from those of the requested plan.
        undo: what is needed to revert it; None for an undo or a redo.
        output_change: the relative change of the model's output on the verifying batch.
        channel_groups: those of the edited model, or None if another process has traced them.
        undone: for an undo: the undone edits, newest first.
        redone: for a redo: what is needed to revert each redone edit again, oldest first.
    """

    plan: EditPlan
    undo: UndoRecord | None
    output_change: float
    channel_groups: ChannelGroups | None
    undone: list[UndoneEdit] = field(default_factory=list)
    redone: list[UndoRecord] = field(default_factory=list)


def perform(
    tx: Transaction,
    model: nn.Module,
    plan: EditPlan,
    optimizers: Sequence[Optimizer],
    initializer: Initializer,
    redo_records: Sequence[ChangeRecord] | None = None,
    origin_model: nn.Module | None = None,
) -> UndoRecord:
    """Perform the changes of a plan, in its order. Freezing changes no tensor: see `Freezer`.

    Args:
        redo_records: what `revert` returned, if the plan is performed again: what it had added
            comes back as it was.
        origin_model: the model that the origins of copies belong to; None: ``model`` itself.
    """
    undo = UndoRecord()
    origin_model = model if origin_model is None else origin_model
    count = len(plan.values) + len(plan.tensors) + len(plan.layers)
    again = iter([None] * count if redo_records is None else redo_records)
    for value in plan.values:
        undo.changes.append(
            apply_value_edit(tx, model, value, optimizers, initializer, next(again), origin_model)
        )
    for edit in plan.tensors:
        undo.changes.append(
            apply_tensor_edit(tx, model, edit, optimizers, initializer, next(again))
        )
    if redo_records is None:
        copy_random_entries_from_origins(tx, model, plan, origin_model)
    update_size_attributes(tx, model, plan)
    for attribute in plan.attributes:
        apply_attribute_edit(tx, model, attribute)
    for layer in plan.layers:
        record, removed = apply_layer_edit(tx, model, layer, optimizers, initializer, next(again))
        undo.changes.append(record)
        if removed is not None:
            undo.removed_layers[layer.host] = removed
    return undo


def revert(
    tx: Transaction,
    model: nn.Module,
    plan: EditPlan,
    optimizers: Sequence[Optimizer],
    undo: UndoRecord,
) -> list[ChangeRecord]:
    """Revert the changes of a plan, newest first.

    Returns:
        What the plan had added, one record per change in the order of the plan: `perform` takes
        it to perform the plan again.
    """
    records = iter(reversed(undo.changes))
    redo_records: list[ChangeRecord] = []
    for layer in reversed(plan.layers):
        removed = undo.removed_layers.get(layer.host)
        redo_records.append(revert_layer_edit(tx, model, layer, optimizers, next(records), removed))
    for attribute in reversed(plan.attributes):
        revert_attribute_edit(tx, model, attribute)
    for edit in reversed(plan.tensors):
        redo_records.append(revert_tensor_edit(tx, model, edit, optimizers, next(records)))
    for value, record in zip(reversed(plan.values), records, strict=False):
        # There are no records of values if only the structure is restored.
        redo_records.append(revert_value_edit(tx, model, value, optimizers, record))
    update_size_attributes(tx, model, plan)
    return redo_records[::-1]
