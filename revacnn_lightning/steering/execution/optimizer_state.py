"""Edits the state of optimizers: survivors keep theirs exactly, new entries start from scratch.

Every dense optimizer of `torch.optim` keeps, per parameter, tensors of the parameter's shape
(moments), scalars (``step``), or, if factored, tensors of its shape with some sizes 1. Tensors are
resized like the parameter; scalars are kept. LBFGS keeps flat vectors over all its parameters:
these are cut, resized and joined again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from revacnn_lightning.steering.execution import entry_ages
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.holders.copy_evidence import tensor_similarity

__all__ = [
    "add_parameter",
    "initial_state_value",
    "param_groups_of",
    "remove_parameter",
    "replace_state_tensors",
]

# From which a state entry is taken for a copy of the weight. Moments are unrelated to it.
WEIGHT_SIMILARITY = 0.9


def initial_state_value(optimizer: Optimizer, group: dict[str, Any], key: str) -> float | None:
    """Return the initial value of a state entry; None if that is the weight itself."""
    kind = type(optimizer).__name__
    if kind == "Adagrad" and key == "sum":
        return float(group["initial_accumulator_value"])
    if kind == "Rprop" and key == "step_size":
        return float(group["lr"])
    if kind == "ASGD" and key == "ax":
        return None  # the running average of the weight
    return 0.0


def _is_copy_of_weights(optimizer: Optimizer, key: str) -> bool:
    """Return whether an optimizer that is not torch's keeps copies of the weights in this entry.

    Examples are the slow weights of Lookahead (Zhang et al. 2019) and master weights.
    """
    if type(optimizer).__module__.startswith("torch.optim."):
        return False
    for parameter, state in optimizer.state.items():
        value = state.get(key) if isinstance(state, Mapping) else None
        if parameter.ndim > 1 and isinstance(value, Tensor) and value.shape == parameter.shape:
            return tensor_similarity([(value, parameter)]) >= WEIGHT_SIMILARITY
    return False


def param_groups_of(optimizers: Iterable[Optimizer], parameter: Tensor) -> Iterator[
    tuple[int, Optimizer, dict[str, Any]]
]:  # fmt: skip
    """Yield (index of the optimizer, optimizer, group) for each group with the parameter."""
    for i, optimizer in enumerate(optimizers):
        for group in optimizer.param_groups:
            if any(each is parameter for each in group["params"]):
                yield i, optimizer, group


StateChange = Callable[[str, Tensor, float | None], Tensor]  # (key, old, start) -> new


def replace_state_tensors(
    tx: Transaction, optimizers: Sequence[Optimizer], parameter: nn.Parameter, change: StateChange
) -> None:
    """Replace every state tensor of a parameter by ``change(key, old, start)``.

    The ages of its entries change along (see `entry_ages`): they are tensors of the parameter's
    shape with all sizes but one 1.

    Call this before the parameter itself is resized. ``key`` identifies the tensor across
    processes (it contains the optimizer's index); ``start`` is what `initial_state_value` returns.
    ``change`` returns ``old`` itself to leave a tensor as it is.
    """
    for i, optimizer, group in param_groups_of(optimizers, parameter):
        if isinstance(optimizer, torch.optim.LBFGS):
            _edit_flat(tx, optimizer, parameter, i, change)
            continue
        state = optimizer.state.get(parameter)
        if not state:
            continue
        for key, old in list(state.items()):
            if isinstance(old, Tensor) and old.ndim == parameter.ndim and old.ndim > 0:
                start = initial_state_value(optimizer, group, key)
                if _is_copy_of_weights(optimizer, key):
                    start = None
                new = change(f"optimizer{i}.{key}", old, start)
                if new is not old:
                    _assign(tx, state, key, new)
        for key, ages in entry_ages.ages_along_dims(optimizer, parameter).items():
            new = change(f"optimizer{i}.{key}", ages, 0.0)
            if new is not ages:
                entry_ages.assign_ages(tx, optimizer, parameter, key, new)


def _assign(tx: Transaction, container: Any, key: Any, new: Any) -> None:
    old = container[key]
    container[key] = new
    tx.on_rollback(lambda: container.__setitem__(key, old))


def _edit_flat(
    tx: Transaction, optimizer: Any, parameter: Tensor, index: int, change: StateChange
) -> None:
    """Apply ``change`` to the part of each flat vector of LBFGS that belongs to the parameter."""
    start = 0
    for each in optimizer._params:
        if each is parameter:
            break
        start += each.numel()
    stop = start + parameter.numel()

    def changed(key: str, flat: Tensor) -> Tensor:
        part = flat[start:stop].view(parameter.shape)
        new = change(f"optimizer{index}.{key}", part, 0.0)
        return flat if new is part else torch.cat([flat[:start], new.reshape(-1), flat[stop:]])

    _map_flat(tx, optimizer, changed)


def _map_flat(tx: Transaction, optimizer: Any, change: Callable[[str, Tensor], Tensor]) -> None:
    """Replace each flat vector of LBFGS, the concatenation of all parameters, by ``change`` of it.

    Call this before the parameters change. Vectors in lists have the key ``"name.position"``.
    """
    total = sum(p.numel() for p in optimizer._params)

    def changed(key: str, value: Any) -> Any:
        is_flat = isinstance(value, Tensor) and value.ndim == 1 and value.numel() == total
        return change(key, value) if is_flat else value

    # The state is that of the first parameter, which the planner refuses to remove.
    state = optimizer.state.get(optimizer._params[0], {})
    for key, value in list(state.items()):
        if isinstance(value, list):
            _assign(tx, state, key, [changed(f"{key}.{j}", v) for j, v in enumerate(value)])
        else:
            _assign(tx, state, key, changed(key, value))
    cached, optimizer._numel_cache = getattr(optimizer, "_numel_cache", None), None
    tx.on_rollback(lambda: setattr(optimizer, "_numel_cache", cached))


# ------------------------------------------------------------ adding and removing parameters


def add_parameter(
    tx: Transaction,
    optimizer: Optimizer,
    group: dict[str, Any],
    parameter: nn.Parameter | Tensor,
    position: int,
    flat: Mapping[str, Tensor] | None = None,
) -> None:
    """Insert a parameter into a group at this position, with initial state.

    Args:
        flat: what `remove_parameter` returned, for a parameter that is restored.
    """
    listed = group["params"]
    position = min(position, len(listed))
    at = sum(p.numel() for p in listed[:position])
    _resize_flat(tx, optimizer, at, 0, parameter.numel(), flat or {})
    listed.insert(position, parameter)

    def remove() -> None:
        listed[:] = [each for each in listed if each is not parameter]
        optimizer.state.pop(parameter, None)

    tx.on_rollback(remove)
    state = _initial_state(optimizer, group, parameter)
    if state:
        optimizer.state[parameter] = state


def _initial_state(
    optimizer: Optimizer, group: dict[str, Any], parameter: Tensor
) -> dict[str, Tensor]:
    """Return the state that the optimizer does not create itself in its next step."""
    kind = type(optimizer).__name__
    if kind == "Adagrad":  # creates its state in its constructor
        device = parameter.device if group.get("fused") else None
        return {
            "step": torch.tensor(0.0, device=device),
            "sum": torch.full_like(parameter, group["initial_accumulator_value"]).detach(),
        }
    if kind == "SGD" and group.get("fused") and _has_momentum(optimizer, group):
        # The fused step takes the momentum of all parameters of a group or of none.
        return {"momentum_buffer": torch.zeros_like(parameter).detach()}
    return {}


def _has_momentum(optimizer: Optimizer, group: dict[str, Any]) -> bool:
    states = [optimizer.state.get(parameter, {}) for parameter in group["params"]]
    return any(state.get("momentum_buffer") is not None for state in states)


def remove_parameter(
    tx: Transaction, optimizer: Optimizer, group: dict[str, Any], parameter: Tensor
) -> dict[str, Tensor]:
    """Remove a parameter and its state from a group.

    Returns its part of each flat vector of LBFGS, by the vector's key.
    """
    listed = group["params"]
    position = next((i for i, each in enumerate(listed) if each is parameter), None)
    if position is None:  # removed already: a wrapper shares its lists with the optimizer inside
        _remove_state(tx, optimizer, parameter)
        return {}
    at = sum(p.numel() for p in listed[:position])
    removed = _resize_flat(tx, optimizer, at, parameter.numel(), 0, {})
    del listed[position]
    tx.on_rollback(lambda: listed.insert(position, parameter))
    _remove_state(tx, optimizer, parameter)
    return removed


def _remove_state(tx: Transaction, optimizer: Optimizer, parameter: Tensor) -> None:
    state = optimizer.state.pop(parameter, None)
    if state is not None:
        tx.on_rollback(lambda: optimizer.state.__setitem__(parameter, state))


def _resize_flat(
    tx: Transaction,
    optimizer: Any,
    at: int,
    remove: int,
    insert: int,
    inserted: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Replace ``remove`` entries at ``at`` of each flat vector of LBFGS by ``insert`` others.

    These are those of ``inserted``, else zeros. Returns the removed entries of each vector.
    """
    removed: dict[str, Tensor] = {}
    if not isinstance(optimizer, torch.optim.LBFGS):
        return removed

    def changed(key: str, flat: Tensor) -> Tensor:
        removed[key] = flat[at : at + remove].clone()
        part = inserted.get(key)
        part = flat.new_zeros(insert) if part is None else part.to(flat)
        return torch.cat([flat[:at], part, flat[at + remove :]])

    _map_flat(tx, optimizer, changed)
    return removed
