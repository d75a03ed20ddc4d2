"""Performs a plan on the copies of the model that are not registered in it, and reverts it there.

The surviving values of a copy stay as they are. Its new entries are those of the model, and what
reads them is zero in both, so the copy computes what it did. An average starts with the model's
new entries, as it started with its first ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy

from torch import nn

from revacnn_lightning.errors import EditFailedError
from revacnn_lightning.steering.execution.executor import UndoRecord, perform, revert
from revacnn_lightning.steering.execution.initialization import Initializer
from revacnn_lightning.steering.execution.tensor_containers import add_and_remove_copied_tensors
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.execution.value_edits import copy_random_entries_from_origins
from revacnn_lightning.steering.holders.copy_plans import must_edit_copy, plan_for_copy
from revacnn_lightning.steering.holders.model_copy import ModelPartCopy
from revacnn_lightning.steering.holders.module_copies import ModuleCopy
from revacnn_lightning.steering.holders.module_matching import structure_hash
from revacnn_lightning.steering.holders.tensor_copy import TensorCopy
from revacnn_lightning.steering.planning.plan import EditPlan

__all__ = ["check_same_structure", "perform_on_copies", "revert_on_copies", "sync_random_entries"]


def perform_on_copies(
    tx: Transaction,
    model: nn.Module,
    plan: EditPlan,
    copies: Sequence[ModelPartCopy],
    undo: UndoRecord,
    initializer: Initializer,
    redo_records: Mapping[str, UndoRecord] | None = None,
) -> None:
    """Perform a plan on the copies of a model on which it was performed already.

    Args:
        undo: the record of the model, to which the records of the copies are added.
        initializer: an initializer with the seed of the model's, so that inserted blocks are equal.
        redo_records: what `revert_on_copies` returned, if the plan is redone.
    """
    for copy in copies:
        if must_edit_copy(copy, plan):
            changes = plan_for_copy(plan, copy)
            if isinstance(copy, TensorCopy):
                changes.layers = []
            again = (redo_records or {}).get(copy.holder, UndoRecord())
            records = again.changes if len(again.changes) == _count(changes) else None
            record = perform(tx, copy.root, changes, [], initializer, records, model)
            if isinstance(copy, TensorCopy):
                record.tensors = add_and_remove_copied_tensors(tx, model, plan, copy, again.tensors)
            undo.copies[copy.holder] = record


def _count(plan: EditPlan) -> int:
    return len(plan.values) + len(plan.tensors) + len(plan.layers)


def sync_random_entries(
    tx: Transaction, model: nn.Module, plan: EditPlan, copies: Sequence[ModelPartCopy]
) -> None:
    """Copy the random entries of the model, which were drawn again, to all its copies."""
    copy_random_entries_from_origins(tx, model, plan, model)
    for copy in copies:
        if must_edit_copy(copy, plan):
            copy_random_entries_from_origins(tx, copy.root, plan_for_copy(plan, copy), model)


def revert_on_copies(
    tx: Transaction,
    model: nn.Module,
    plan: EditPlan,
    copies: Sequence[ModelPartCopy],
    undo: UndoRecord,
) -> dict[str, UndoRecord]:
    """Revert a plan, already reverted on the model, on its copies.

    A copy that was made after the edit, or whose record was lost in a resume, gets back what the
    model gets back.

    Returns:
        What the plan had added to each copy, by the name of its holder, for `perform_on_copies`.
    """
    redo_records = {}
    for copy in copies:
        changes = plan_for_copy(plan, copy)
        if copy.holder not in undo.copies and not must_edit_copy(copy, plan):
            continue
        if isinstance(copy, TensorCopy):
            changes.layers = []
        record = undo.copies.get(copy.holder) or _record_of_model(plan, copy, undo)
        if isinstance(copy, ModuleCopy):
            _restore_removed_layers(model, changes, copy, record)
        redo_records[copy.holder] = UndoRecord(revert(tx, copy.root, changes, [], record))
        if isinstance(copy, TensorCopy):
            removed = add_and_remove_copied_tensors(tx, model, plan, copy, record.tensors)
            redo_records[copy.holder].tensors = removed
    return redo_records


def _restore_removed_layers(
    model: nn.Module, changes: EditPlan, copy: ModuleCopy, record: UndoRecord
) -> None:
    """Copy the restored layers of the model where those of a copy are not available."""
    for layer in changes.layers:
        if layer.action == "replace" and layer.host not in record.removed_layers:
            restored = deepcopy(model.get_submodule(layer.origin))
            present = next(copy.module.parameters())
            restored.to(present.device).requires_grad_(present.requires_grad)
            record.removed_layers[layer.host] = restored


def _record_of_model(plan: EditPlan, copy: ModelPartCopy, undo: UndoRecord) -> UndoRecord:
    """Return the records of those changes of the model that concern a copy."""
    names = [value.tensor if copy.has_values else "" for value in plan.values]
    names += [edit.tensor for edit in plan.tensors]
    names += [layer.host if isinstance(copy, ModuleCopy) else "" for layer in plan.layers]
    if len(undo.changes) < len(names):  # of the structure only: without values
        names = names[len(plan.values) :]
    records = zip(names, undo.changes, strict=True)
    return UndoRecord([r for name, r in records if name and copy.name_in_copy(name) is not None])


def check_same_structure(model: nn.Module, copies: Sequence[ModelPartCopy]) -> None:
    """Check that every copy has the structure of its origin.

    Raises:
        EditFailedError: a copy has another structure; the edit must be rolled back.
    """
    known: dict[int, int] = {}
    for copy in copies:
        if not isinstance(copy, ModuleCopy) or copy.is_unpruned:
            continue
        origin = model.get_submodule(copy.origin)
        if structure_hash(copy.module, known) != structure_hash(origin, known):
            raise EditFailedError(
                f"{copy.holder} would not have the structure of {copy.origin or 'the model'} after "
                "the edit; the edit was rolled back"
            )
