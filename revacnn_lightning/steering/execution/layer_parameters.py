"""Moves the parameters of inserted, removed and restored layers into and out of optimizers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from revacnn_lightning.steering.execution import entry_ages, optimizer_state
from revacnn_lightning.steering.execution.replacement import ChangeRecord
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.holders.optimizers import all_optimizers
from revacnn_lightning.steering.planning.lookup import find_owner_and_tensor
from revacnn_lightning.steering.planning.plan import LayerEdit

__all__ = [
    "add_to_group_of",
    "reinsert_into_param_groups",
    "remove_parameters",
    "save_layer_before_removal",
]


def add_to_group_of(
    tx: Transaction,
    neighbor: nn.Module,
    block: nn.Module,
    optimizers: Sequence[Optimizer],
    *,
    is_copy: bool = False,
) -> None:
    """Add the parameters of ``block`` to the parameter group that trains ``neighbor``.

    A group of their own would break schedulers: LambdaLR counts groups when it is created. The
    parameters of a copy are added to none if none has those of its neighbor.
    """
    added = list(block.parameters())
    if not added or not optimizers:
        return
    groups = _groups_that_train(neighbor, optimizers)
    if not groups and not is_copy:
        groups = [(optimizers[0], optimizers[0].param_groups[0])]
    for optimizer, group in groups:
        for parameter in added:
            if not any(each is parameter for each in group["params"]):
                optimizer_state.add_parameter(tx, optimizer, group, parameter, len(group["params"]))


def _groups_that_train(
    neighbor: nn.Module, optimizers: Sequence[Optimizer]
) -> list[tuple[Optimizer, dict[str, Any]]]:
    """Return the group that trains a module, if any.

    If its optimizer wraps another one, which does the step, the group of that one follows.
    """
    found = [
        (optimizer, group)
        for p in neighbor.parameters()
        for _, optimizer, group in optimizer_state.param_groups_of(optimizers, p)
    ]
    if not found:
        return []
    first, group = found[0]
    wrapped = [each for each in all_optimizers(neighbor, [first]) if each is not first]
    groups = {id(each): (each, of) for each, of in reversed(found) if each in wrapped}
    return [(first, group), *groups.values()]


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


def save_layer_before_removal(
    model: nn.Module, edit: LayerEdit, layer: nn.Module, optimizers: Sequence[Optimizer]
) -> ChangeRecord:
    """Return the tensors of a layer about to be removed, and their optimizer state."""
    record: ChangeRecord = {f"data {n}": t.detach() for n, t in layer.state_dict().items()}
    for name, optimizer, _, _ in edit.positions:
        if optimizer < len(optimizers):
            parameter = find_owner_and_tensor(model, name)[1]
            for key, value in optimizers[optimizer].state.get(parameter, {}).items():
                if isinstance(value, (Tensor, float, int)):
                    record[f"state {optimizer} {name} {key}"] = value
            prefix = f"births {optimizer} {name} "
            record |= entry_ages.birth_steps_by_prefixed_key(
                optimizers[optimizer], parameter, prefix
            )
    return record


def reinsert_into_param_groups(
    tx: Transaction,
    model: nn.Module,
    edit: LayerEdit,
    optimizers: Sequence[Optimizer],
    record: ChangeRecord,
) -> None:
    """Insert the parameters of a restored layer where they were, with their optimizer state."""
    for name, i, j, position in edit.positions:
        if not optimizers:
            continue
        if i >= len(optimizers) or j >= len(optimizers[i].param_groups):
            i, j, position = 0, 0, len(optimizers[0].param_groups[0]["params"])  # replaced since
        parameter = find_owner_and_tensor(model, name)[1]
        optimizer, group = optimizers[i], optimizers[i].param_groups[j]
        if any(True for _ in optimizer_state.param_groups_of([optimizer], parameter)):
            continue  # shared with a layer that was not removed
        flat = _with_prefix(record, f"flat {i} {name} ")
        optimizer_state.add_parameter(tx, optimizer, group, parameter, position, flat)
        state = _with_prefix(record, f"state {i} {name} ")
        if state and _fits(optimizer, state):
            optimizer.state[parameter] = state  # rolled back with the parameter itself
        births = _with_prefix(record, f"births {i} {name} ")
        entry_ages.restore_recorded_birth_steps(tx, optimizer, parameter, births)


def _fits(optimizer: Optimizer, state: ChangeRecord) -> bool:
    """Return whether the optimizer keeps such a state; another one may have replaced it since."""
    present = [set(each) for each in optimizer.state.values() if each]
    return set(state) in present


def _with_prefix(record: ChangeRecord, prefix: str) -> ChangeRecord:
    return {key[len(prefix) :]: v for key, v in record.items() if key.startswith(prefix)}
