"""Keeps the parameters of a layer that an undo takes away, and gives them to the redone layer.

The redone layer is a new module: it gets the values, gradients and optimizer state by name.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from revacnn_lightning.steering.execution import optimizer_state
from revacnn_lightning.steering.execution.replacement import ChangeRecord
from revacnn_lightning.steering.execution.transaction import Transaction

__all__ = ["load_redone_layer", "save_undone_layer"]


def save_undone_layer(layer: nn.Module, optimizers: Sequence[Optimizer]) -> ChangeRecord:
    """Return the tensors of a layer that an undo is about to remove, and their optimizer state."""
    record: ChangeRecord = {f"data {n}": t.detach() for n, t in layer.state_dict().items()}
    for name, parameter in layer.named_parameters():
        if parameter.grad is not None:
            record[f"grad {name}"] = parameter.grad
        for i, optimizer, _ in optimizer_state.param_groups_of(optimizers, parameter):
            key = f"state {i} {name}"
            if isinstance(optimizer, torch.optim.LBFGS):
                _map_flat(Transaction(), optimizer, parameter, key, saved_in=record)
                continue
            for entry, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, (Tensor, float, int)):
                    record[f"{key} {entry}"] = value
    return record


def load_redone_layer(
    tx: Transaction, layer: nn.Module, optimizers: Sequence[Optimizer], record: ChangeRecord
) -> None:
    """Give a redone layer the values and the state that `save_undone_layer` returned.

    The parameters of the layer must be in their groups already.
    """
    tensors = layer.state_dict()
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(record[f"data {name}"])
    for name, parameter in layer.named_parameters():
        grad = record.get(f"grad {name}")
        parameter.grad = None if grad is None else grad.to(parameter)
        for i, optimizer, _ in optimizer_state.param_groups_of(optimizers, parameter):
            key = f"state {i} {name}"
            if isinstance(optimizer, torch.optim.LBFGS):
                _map_flat(tx, optimizer, parameter, key, taken_from=record)
                continue
            entries = [entry for entry in record if entry.startswith(f"{key} ")]
            if entries and _fits(optimizer, {entry[len(key) + 1 :] for entry in entries}):
                # Rolled back with the parameter itself.
                optimizer.state[parameter] = {e[len(key) + 1 :]: record[e] for e in entries}


def _map_flat(
    tx: Transaction,
    optimizer: Optimizer,
    parameter: nn.Parameter,
    prefix: str,
    *,
    saved_in: ChangeRecord | None = None,
    taken_from: ChangeRecord | None = None,
) -> None:
    """Save the parameter's part of the flat vectors of LBFGS, or set it."""

    def change(key: str, part: Tensor, start: float | None) -> Tensor:
        name = f"{prefix} {key.partition('.')[2]}"
        if saved_in is not None:
            saved_in[name] = part.clone()
        if taken_from is None or name not in taken_from:
            return part
        saved: Tensor = taken_from[name]
        return saved.to(part)

    optimizer_state.replace_state_tensors(tx, [optimizer], parameter, change)


def _fits(optimizer: Optimizer, entries: set[str]) -> bool:
    """Return whether the optimizer keeps such a state; training may have replaced it since."""
    present = [set(state) for state in optimizer.state.values() if state]
    return not present or entries in present
