"""Read and set the learning rates and weight decays of a running optimizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.messages import ParameterGroup
from revacnn_lightning.protocol.requests import SetHyperparameter

__all__ = ["describe_parameter_groups", "set_hyperparameter"]

# Entries of a parameter group, written by learning rate schedules, in units of the learning rate.
SCHEDULED_RATES = ("initial_lr", "max_lr", "min_lr")


def describe_parameter_groups(optimizers: Sequence[Optimizer]) -> list[ParameterGroup]:
    """Return the current hyperparameters of all parameter groups of all optimizers."""
    return [
        ParameterGroup(
            optimizer=i,
            group=j,
            optimizer_type=type(optimizer).__name__,
            parameter_count=sum(parameter.numel() for parameter in group["params"]),
            learning_rate=_to_number(group.get("lr")),
            weight_decay=_to_number(group.get("weight_decay")),
        )
        for i, optimizer in enumerate(optimizers)
        for j, group in enumerate(optimizer.param_groups)
    ]


def set_hyperparameter(
    request: SetHyperparameter, optimizers: Sequence[Optimizer], schedulers: Sequence[Any]
) -> str:
    """Set a hyperparameter and rescale learning rate schedules; return what was done, in words.

    Raises:
        EditRefusedError: the parameter group or the hyperparameter does not exist, or the value is
            out of range.
    """
    optimizer = _find_optimizer(request, optimizers)
    group = optimizer.param_groups[request.group]
    if request.name not in group:
        raise EditRefusedError(f"{type(optimizer).__name__} has no {request.name}")
    before = float(group[request.name])
    _assign(group, request.name, request.value)
    if request.name == "lr" and before > 0:
        _rescale_schedules(group, request.group, optimizer, schedulers, request.value / before)
    return f"{request.name} {before:g} → {request.value:g}"


def _find_optimizer(request: SetHyperparameter, optimizers: Sequence[Optimizer]) -> Optimizer:
    """Return the optimizer of a valid request."""
    if not math.isfinite(request.value) or request.value < 0:
        raise EditRefusedError(
            f"{request.name} must be a finite number of at least 0, not {request.value}"
        )
    if not 0 <= request.optimizer < len(optimizers):
        raise EditRefusedError(
            f"there is no optimizer {request.optimizer}; this training has {len(optimizers)}"
        )
    optimizer = optimizers[request.optimizer]
    if not 0 <= request.group < len(optimizer.param_groups):
        raise EditRefusedError(
            f"optimizer {request.optimizer} has no parameter group {request.group}; "
            f"it has {len(optimizer.param_groups)}"
        )
    return optimizer


def _rescale_schedules(
    group: dict[str, Any],
    index: int,
    optimizer: Optimizer,
    schedulers: Sequence[Any],
    factor: float,
) -> None:
    """Scale the rates from which schedules compute, so that the schedule keeps its shape."""
    for name in SCHEDULED_RATES:
        if _to_number(group.get(name)) is not None:
            _assign(group, name, float(group[name]) * factor)
    for scheduler in schedulers:
        bases = getattr(scheduler, "base_lrs", None)
        if getattr(scheduler, "optimizer", None) is optimizer and bases and index < len(bases):
            bases[index] = float(bases[index]) * factor


def _assign(group: dict[str, Any], name: str, value: float) -> None:
    """Set a number in a parameter group; the tensors of capturable optimizers are set in place."""
    if isinstance(group[name], Tensor):
        group[name].fill_(value)
    else:
        group[name] = value


def _to_number(value: Any) -> float | None:
    if isinstance(value, (int, float, Tensor)) and not isinstance(value, bool):
        return float(value)
    return None
