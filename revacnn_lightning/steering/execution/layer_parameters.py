"""Moves the parameters of inserted, removed and restored layers into and out of optimizers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.optim import Optimizer

from revacnn_lightning.steering.execution import optimizer_state
from revacnn_lightning.steering.execution.replacement import ChangeRecord
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.planning.lookup import find_tensor
from revacnn_lightning.steering.planning.plan import LayerEdit

__all__ = ["add_to_group_of", "remove_parameters", "restore_parameters", "saved_layer"]


def add_to_group_of(
    tx: Transaction, neighbor: nn.Module, block: nn.Module, optimizers: Sequence[Optimizer]
) -> None:
    """Add the parameters of ``block`` to the parameter group that trains ``neighbor``.

    A group of their own would break schedulers: LambdaLR counts groups when it is created.
    """
    added = list(block.parameters())
    if not added or not optimizers:
        return
    groups = [
        found
        for p in neighbor.parameters()
        for found in optimizer_state.param_groups_of(optimizers, p)
    ]
    _, optimizer, group = groups[0] if groups else (0, optimizers[0], optimizers[0].param_groups[0])
    for parameter in added:
        optimizer_state.add_parameter(tx, optimizer, group, parameter, len(group["params"]))


def remove_parameters(
    tx: Transaction,
    module: nn.Module,
    optimizers: Sequence[Optimizer],
    prefix: str = "",
    still_used_by: nn.Module | None = None,
) -> ChangeRecord:
    """Remove a module's parameters from their groups, except those another module still uses.

    Returns the removed parts of flat optimizer state.
    """
    used = {id(p) for p in still_used_by.parameters()} if still_used_by is not None else set()
    record: ChangeRecord = {}
    for name, parameter in module.named_parameters(prefix):
        if id(parameter) not in used:
            for i, optimizer, group in list(optimizer_state.param_groups_of(optimizers, parameter)):
                cut = optimizer_state.remove_parameter(tx, optimizer, group, parameter)
                record |= {f"flat {i} {name} {key}": part for key, part in cut.items()}
    return record


def saved_layer(
    model: nn.Module, edit: LayerEdit, layer: nn.Module, optimizers: Sequence[Optimizer]
) -> ChangeRecord:
    """Return the tensors of a layer about to be removed, and their optimizer state."""
    record: ChangeRecord = {f"data {n}": t.detach() for n, t in layer.state_dict().items()}
    for name, optimizer, _, _ in edit.positions:
        if optimizer < len(optimizers):
            parameter = find_tensor(model, name)[1]
            for key, value in optimizers[optimizer].state.get(parameter, {}).items():
                if isinstance(value, (Tensor, float, int)):
                    record[f"state {optimizer} {name} {key}"] = value
    return record


def restore_parameters(
    tx: Transaction,
    model: nn.Module,
    edit: LayerEdit,
    optimizers: Sequence[Optimizer],
    record: ChangeRecord,
) -> None:
    """Insert the parameters of a restored layer where they were, with their optimizer state."""
    for name, i, j, position in edit.positions:
        if i >= len(optimizers) or j >= len(optimizers[i].param_groups):
            continue
        parameter = find_tensor(model, name)[1]
        optimizer, group = optimizers[i], optimizers[i].param_groups[j]
        if any(each is parameter for each in group["params"]):
            continue  # shared with a layer that was not removed
        flat = _with_prefix(record, f"flat {i} {name} ")
        optimizer_state.add_parameter(tx, optimizer, group, parameter, position, flat)
        state = _with_prefix(record, f"state {i} {name} ")
        if state:
            optimizer.state[parameter] = state  # rolled back with the parameter itself


def _with_prefix(record: ChangeRecord, prefix: str) -> ChangeRecord:
    return {key[len(prefix) :]: v for key, v in record.items() if key.startswith(prefix)}
