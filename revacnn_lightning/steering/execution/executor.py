"""Performs every change of an `EditPlan` on a model and its optimizers, and reverts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from revacnn_lightning.steering.execution.layer_edits import apply_layer_edit, revert_layer_edit
from revacnn_lightning.steering.execution.module_attributes import (
    apply_attribute_edit,
    revert_attribute_edit,
)
from revacnn_lightning.steering.execution.tensor_edits import (
    ChangeRecord,
    apply_tensor_edit,
    revert_tensor_edit,
)
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.execution.value_edits import apply_value_edit, revert_value_edit
from revacnn_lightning.steering.planning.plan import EditPlan
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups

__all__ = ["UndoRecord", "perform", "revert"]


@dataclass
class UndoRecord:
    """What an edit removed, from which it is reverted.

    Attributes:
        changes: one record per change, in the order of the plan.
        removed_layers: the removed modules, by name. They are objects of this process; `replay`
            finds them again in another one.
        groups_before: the channel groups before the edit; kept for the newest edit only.
        copies: what the edit removed from copies outside the model, by the name of their holder.
        tensors: the tensors that the edit removed from a container of copies, by name.
    """

    changes: list[ChangeRecord] = field(default_factory=list)
    removed_layers: dict[str, nn.Module] = field(default_factory=dict)
    groups_before: ChannelGroups | None = None
    copies: dict[str, UndoRecord] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)


def perform(
    tx: Transaction,
    model: nn.Module,
    plan: EditPlan,
    optimizers: Sequence[Optimizer],
    generator: torch.Generator,
    source: nn.Module | None = None,
) -> UndoRecord:
    """Perform the changes of a plan, in its order. Freezing changes no tensor: see `Freezer`.

    Args:
        source: the model that the origins of copies belong to; None: ``model`` itself.
    """
    undo = UndoRecord()
    source = model if source is None else source
    for value in plan.values:
        undo.changes.append(apply_value_edit(tx, model, value, optimizers, generator, source))
    for edit in plan.tensors:
        undo.changes.append(apply_tensor_edit(tx, model, edit, optimizers, generator, source))
    for attribute in plan.attributes:
        apply_attribute_edit(tx, model, attribute)
    for layer in plan.layers:
        record, removed = apply_layer_edit(tx, model, layer, optimizers, generator)
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
) -> None:
    """Revert the changes of a plan, newest first."""
    records = iter(reversed(undo.changes))
    for layer in reversed(plan.layers):
        removed = undo.removed_layers.get(layer.host)
        revert_layer_edit(tx, model, layer, optimizers, next(records), removed)
    for attribute in reversed(plan.attributes):
        revert_attribute_edit(tx, model, attribute)
    for edit in reversed(plan.tensors):
        revert_tensor_edit(tx, model, edit, optimizers, next(records))
    for value in reversed(plan.values):
        revert_value_edit(tx, model, value, optimizers, next(records))
