"""Performs a plan on the copies of the model that are not registered in it, and reverts it there.

The surviving values of a copy stay as they are. Its new entries are those of the model, and what
reads them is zero in both, so the copy computes what it did. An average starts with the model's
new entries, as it started with its first ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import nn

from revacnn_lightning.errors import EditFailedError
from revacnn_lightning.steering.execution.executor import UndoRecord, perform, revert
from revacnn_lightning.steering.execution.tensor_containers import update_container
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.execution.value_edits import copy_new_entries
from revacnn_lightning.steering.holders.copy_plans import is_touched, renamed_plan
from revacnn_lightning.steering.holders.model_copy import ModelCopy
from revacnn_lightning.steering.holders.module_copies import ModuleCopy
from revacnn_lightning.steering.holders.module_matching import structure_of
from revacnn_lightning.steering.holders.tensor_copies import TensorCopy
from revacnn_lightning.steering.planning.plan import EditPlan

__all__ = ["check_alike", "perform_on_copies", "revert_on_copies", "update_new_entries"]


def perform_on_copies(
    tx: Transaction,
    model: nn.Module,
    plan: EditPlan,
    copies: Sequence[ModelCopy],
    undo: UndoRecord,
    generator: torch.Generator,
) -> None:
    """Perform a plan, already performed on the model, on its copies; ``undo`` gets their records.

    Args:
        generator: with the seed that the model's was made with: inserted blocks are equal.
    """
    for copy in copies:
        if is_touched(copy, plan):
            changes = renamed_plan(plan, copy)
            if isinstance(copy, TensorCopy):
                changes.layers = []
            undo.copies[copy.holder] = perform(tx, copy.root, changes, [], generator, model)
            if isinstance(copy, TensorCopy):
                undo.copies[copy.holder].tensors = update_container(tx, model, copy, {})


def update_new_entries(
    tx: Transaction, model: nn.Module, plan: EditPlan, copies: Sequence[ModelCopy]
) -> None:
    """Give the fresh entries of all copies the values of the model, which were drawn again."""
    for edit in plan.tensors:
        if edit.fill == "fresh" and edit.origin:
            copy_new_entries(tx, model, edit, model)
    for copy in copies:
        if is_touched(copy, plan):
            for edit in renamed_plan(plan, copy).tensors:
                if edit.fill == "fresh":
                    copy_new_entries(tx, copy.root, edit, model)


def revert_on_copies(
    tx: Transaction,
    model: nn.Module,
    plan: EditPlan,
    copies: Sequence[ModelCopy],
    undo: UndoRecord,
) -> None:
    """Revert a plan, already reverted on the model, on its copies.

    A copy that was made after the edit, or whose record was lost in a resume, gets back what the
    model gets back.
    """
    for copy in copies:
        changes = renamed_plan(plan, copy)
        if copy.holder not in undo.copies and not is_touched(copy, plan):
            continue
        if isinstance(copy, TensorCopy):
            changes.layers = []
        record = undo.copies.get(copy.holder) or _record_of_model(plan, copy, undo)
        if isinstance(copy, ModuleCopy):
            _restore_removed_layers(model, changes, copy, record)
        revert(tx, copy.root, changes, [], record)
        if isinstance(copy, TensorCopy):
            update_container(tx, model, copy, record.tensors)


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


def _record_of_model(plan: EditPlan, copy: ModelCopy, undo: UndoRecord) -> UndoRecord:
    """Return the records of those changes of the model that concern a copy."""
    names = [value.tensor if copy.has_values else "" for value in plan.values]
    names += [edit.tensor for edit in plan.tensors]
    names += [layer.host if isinstance(copy, ModuleCopy) else "" for layer in plan.layers]
    records = zip(names, undo.changes, strict=True)
    return UndoRecord([r for name, r in records if name and copy.rename(name) is not None])


def check_alike(model: nn.Module, copies: Sequence[ModelCopy]) -> None:
    """Check that every copy has the structure of its origin.

    Raises:
        EditFailedError: one has another; the edit must be rolled back.
    """
    known: dict[int, int] = {}
    for copy in copies:
        if not isinstance(copy, ModuleCopy) or copy.is_unpruned:
            continue
        origin = model.get_submodule(copy.origin)
        if structure_of(copy.module, known) != structure_of(origin, known):
            raise EditFailedError(
                f"{copy.holder} would not have the structure of {copy.origin or 'the model'} after "
                "the edit; the edit was rolled back"
            )
