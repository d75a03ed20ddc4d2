"""The state of optimizers under an edit: survivors keep theirs exactly, new entries start fresh.

Every dense optimizer of `torch.optim` keeps, per parameter, tensors of the parameter's shape
(moments), scalars (``step``), or, if factored, tensors of its shape with some sizes 1. The first
and last are resized like the parameter; scalars are kept. LBFGS keeps flat vectors over all its
parameters: they are cut, resized and joined again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from revacnn_lightning.steering.execution.transaction import Transaction

__all__ = [
    "add_parameter",
    "check",
    "drop_parameter",
    "edit_state",
    "groups_of",
    "notes_for",
    "start_value",
]

# What cannot be exact, and why. Keys are class names, so that older torch versions need no class.
INEXACT = {
    "Adafactor": "Adafactor couples all entries of a tensor (row and column means), so the "
    "survivors' next steps differ from an unedited run's",
    "Muon": "Muon's rate depends on the shape of a matrix, so the survivors' next steps differ "
    "from an unedited run's",
    "LBFGS": "LBFGS couples all parameters, so the survivors' next steps agree with an unedited "
    "run's up to rounding only",
}


def start_value(optimizer: Optimizer, group: dict[str, Any], key: str) -> float | None:
    """Where this optimizer starts an entry of its state; None: at the weight itself."""
    kind = type(optimizer).__name__
    if kind == "Adagrad" and key == "sum":
        return float(group["initial_accumulator_value"])
    if kind == "Rprop" and key == "step_size":
        return float(group["lr"])
    if kind == "ASGD" and key == "ax":
        return None  # the running average of the weight
    return 0.0


def groups_of(optimizers: Iterable[Optimizer], parameter: Tensor) -> Iterator[
    tuple[int, Optimizer, dict[str, Any]]
]:  # fmt: skip
    """(index of the optimizer, optimizer, group) of each group that holds the parameter."""
    for i, optimizer in enumerate(optimizers):
        for group in optimizer.param_groups:
            if any(each is parameter for each in group["params"]):
                yield i, optimizer, group


def notes_for(optimizers: Sequence[Optimizer], parameters: Iterable[Tensor]) -> list[str]:
    """What a person should know about these optimizers before the parameters are resized."""
    touched = list(parameters)
    names = {type(o).__name__ for o in optimizers for p in touched if _holds(o, p)}
    return [INEXACT[name] for name in sorted(names) if name in INEXACT]


def _holds(optimizer: Optimizer, parameter: Tensor) -> bool:
    return any(p is parameter for group in optimizer.param_groups for p in group["params"])


def check(optimizers: Sequence[Optimizer], names: dict[str, Tensor]) -> str:
    """Why the state of one of these parameters cannot be resized; "" if all can."""
    for optimizer in optimizers:
        if isinstance(optimizer, torch.optim.LBFGS):
            continue
        for name, parameter in names.items():
            for key, value in optimizer.state.get(parameter, {}).items():
                if not _understood(value, parameter):
                    kind = type(optimizer).__name__
                    return f"the state {key!r} that {kind} keeps for {name} cannot be resized"
    return ""


def _understood(value: Any, parameter: Tensor) -> bool:
    if isinstance(value, Tensor) and value.numel() > 1:
        return value.ndim == parameter.ndim and all(
            a in (b, 1) for a, b in zip(value.shape, parameter.shape, strict=True)
        )
    return not isinstance(value, (list, tuple, dict)) or not any(
        isinstance(each, Tensor) for each in value
    )


Change = Callable[[str, Tensor, float | None], Tensor]


def edit_state(
    tx: Transaction, optimizers: Sequence[Optimizer], parameter: nn.Parameter, change: Change
) -> None:
    """Give every state tensor of a parameter the value ``change(key, old, start)`` returns.

    Call it before the parameter itself is resized. ``key`` names the tensor for good (it holds
    the optimizer's index); ``start`` is where the optimizer starts an entry, None: at the weight.
    ``change`` returns its argument for a tensor that it does not want to change.
    """
    for i, optimizer, group in groups_of(optimizers, parameter):
        if isinstance(optimizer, torch.optim.LBFGS):
            _edit_flat(tx, optimizer, parameter, i, change)
            continue
        state = optimizer.state.get(parameter)
        if not state:
            continue
        for key, old in list(state.items()):
            if isinstance(old, Tensor) and old.ndim == parameter.ndim and old.ndim > 0:
                new = change(f"optimizer{i}.{key}", old, start_value(optimizer, group, key))
                if new is not old:
                    _assign(tx, state, key, new)


def _assign(tx: Transaction, container: Any, key: Any, new: Any) -> None:
    old = container[key]
    container[key] = new
    tx.on_rollback(lambda: container.__setitem__(key, old))


def _edit_flat(
    tx: Transaction, optimizer: Any, parameter: Tensor, index: int, change: Change
) -> None:
    """LBFGS: every 1-D state tensor is the concatenation of all parameters."""
    before = 0
    for each in optimizer._params:
        if each is parameter:
            break
        before += each.numel()
    size, total = parameter.numel(), sum(p.numel() for p in optimizer._params)

    def edited(key: str, flat: Any) -> Any:
        if not isinstance(flat, Tensor) or flat.ndim != 1 or flat.numel() != total:
            return flat
        part = flat[before : before + size].view(parameter.shape)
        new = change(f"optimizer{index}.{key}", part, 0.0)
        if new is part:
            return flat
        return torch.cat([flat[:before], new.reshape(-1), flat[before + size :]])

    state = optimizer.state.get(optimizer._params[0], {})
    for key, value in list(state.items()):
        if isinstance(value, list):
            _assign(tx, state, key, [edited(f"{key}.{j}", each) for j, each in enumerate(value)])
        else:
            _assign(tx, state, key, edited(key, value))
    cached = getattr(optimizer, "_numel_cache", None)
    optimizer._numel_cache = None
    tx.on_rollback(lambda: setattr(optimizer, "_numel_cache", cached))


# -------------------------------------------------------------------- parameters come and go


def add_parameter(
    tx: Transaction,
    optimizer: Optimizer,
    group: dict[str, Any],
    parameter: nn.Parameter | Tensor,
    position: int,
    flat: Mapping[str, Tensor] | None = None,
) -> None:
    """Put a parameter into a group at this position, with the state of one that begins.

    ``flat``: what `drop_parameter` returned, for a parameter that comes back.
    """
    listed = group["params"]
    position = min(position, len(listed))
    at = sum(p.numel() for p in listed[:position])
    _resize_flat(tx, optimizer, at, 0, parameter.numel(), flat or {})
    listed.insert(position, parameter)

    def take_out() -> None:
        listed[:] = [each for each in listed if each is not parameter]
        optimizer.state.pop(parameter, None)

    tx.on_rollback(take_out)
    if type(optimizer).__name__ == "Adagrad":  # the only one that makes its state beforehand
        optimizer.state[parameter] = {
            "step": torch.tensor(0.0),
            "sum": torch.full_like(parameter, group["initial_accumulator_value"]).detach(),
        }


def drop_parameter(
    tx: Transaction, optimizer: Optimizer, group: dict[str, Any], parameter: Tensor
) -> dict[str, Tensor]:
    """Take a parameter out of a group, and its state with it.

    Returns its part of LBFGS's flat vectors, by their names.
    """
    listed = group["params"]
    position = next(i for i, each in enumerate(listed) if each is parameter)
    at = sum(p.numel() for p in listed[:position])
    cut = _resize_flat(tx, optimizer, at, parameter.numel(), 0, {})
    del listed[position]
    state = optimizer.state.pop(parameter, None)

    def put_back() -> None:
        listed.insert(position, parameter)
        if state is not None:
            optimizer.state[parameter] = state

    tx.on_rollback(put_back)
    return cut


def _resize_flat(
    tx: Transaction,
    optimizer: Any,
    at: int,
    remove: int,
    insert: int,
    filling: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """LBFGS: cut ``remove`` entries of each flat vector at ``at`` and put ``insert`` others in.

    They are zeros where ``filling`` has none for this vector. Returns what was cut, by vector.
    """
    cut: dict[str, Tensor] = {}
    if not isinstance(optimizer, torch.optim.LBFGS):
        return cut
    total = sum(p.numel() for p in optimizer._params)

    def edited(key: str, flat: Any) -> Any:
        if not isinstance(flat, Tensor) or flat.ndim != 1 or flat.numel() != total:
            return flat
        cut[key] = flat[at : at + remove].clone()
        part = filling.get(key)
        part = flat.new_zeros(insert) if part is None else part.to(flat)
        return torch.cat([flat[:at], part, flat[at + remove :]])

    # The state hangs on the first parameter; the planner refuses to remove that one.
    state = optimizer.state.get(optimizer._params[0], {})
    for key, value in list(state.items()):
        if isinstance(value, list):
            _assign(tx, state, key, [edited(f"{key}.{j}", v) for j, v in enumerate(value)])
        else:
            _assign(tx, state, key, edited(key, value))
    cached, optimizer._numel_cache = optimizer._numel_cache, None
    tx.on_rollback(lambda: setattr(optimizer, "_numel_cache", cached))
    return cut
