"""Read and set the learning rates and weight decays of a running optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from msgspec.structs import replace
from torch import Tensor
from torch.optim import Optimizer

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.messages import ParameterGroup
from revacnn_lightning.protocol.requests import SetHyperparameter
from revacnn_lightning.runtime.schedule_trial import find_custom_scheduler_rate_attributes
from revacnn_lightning.runtime.schedulers import (
    computes_rates_like_torch,
    scale_scheduler_rates,
    scale_scheduler_rates_in_group,
    schedulers_of,
    torch_rate_attributes,
    why_not_scalable_per_group,
)

__all__ = [
    "describe_parameter_groups",
    "learning_rates",
    "set_hyperparameter",
    "set_hyperparameter_revertibly",
]


def describe_parameter_groups(
    optimizers: Sequence[Optimizer], notes: Mapping[tuple[int, int], str] = MappingProxyType({})
) -> list[ParameterGroup]:
    """Return the current hyperparameters of all parameter groups of all optimizers.

    ``notes`` holds a text for some of the groups, by (optimizer, group).
    """
    return [
        ParameterGroup(
            optimizer=i,
            group=j,
            optimizer_type=type(optimizer).__name__,
            parameter_count=sum(parameter.numel() for parameter in group["params"]),
            learning_rate=_to_number(group.get("lr")),
            weight_decay=_to_number(group.get("weight_decay")),
            note=notes.get((i, j), ""),
        )
        for i, optimizer in enumerate(optimizers)
        for j, group in enumerate(optimizer.param_groups)
    ]


def learning_rates(optimizers: Sequence[Optimizer]) -> list[float]:
    """Return the learning rate of every parameter group of all optimizers."""
    return [float(group["lr"]) for optimizer in optimizers for group in optimizer.param_groups]


def set_hyperparameter(
    request: SetHyperparameter, optimizers: Sequence[Optimizer], schedulers: Sequence[Any]
) -> str:
    """Set a hyperparameter and rescale learning rate schedules; return what was done, in words.

    Raises:
        EditRefusedError: the parameter group or the hyperparameter does not exist, the value is
            out of range, or a schedule of the rate cannot be scaled.
    """
    optimizer = _find_optimizer(request, optimizers)
    group = optimizer.param_groups[request.group]
    if request.name not in group:
        raise EditRefusedError(f"{type(optimizer).__name__} has no {request.name}")
    before = float(group[request.name])
    if request.name == "lr":
        _rescale_schedules(request, optimizer, schedulers_of(optimizer, schedulers), before)
    _assign(group, request.name, request.value)
    return f"{request.name} {before:g} → {request.value:g}"


def set_hyperparameter_revertibly(
    request: SetHyperparameter, optimizers: Sequence[Optimizer], schedulers: Sequence[Any]
) -> tuple[str, Callable[[], object]]:
    """Set a hyperparameter; return what was done, in words, and what sets the value before again.

    Raises:
        EditRefusedError: as `set_hyperparameter`.
    """
    before = _to_number(_find_group(request, optimizers).get(request.name))
    result = set_hyperparameter(request, optimizers, schedulers)
    old = replace(request, value=before or 0.0)
    return result, lambda: set_hyperparameter(old, optimizers, schedulers)


def _find_group(request: SetHyperparameter, optimizers: Sequence[Optimizer]) -> dict[str, Any]:
    return _find_optimizer(request, optimizers).param_groups[request.group]


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
    request: SetHyperparameter, optimizer: Optimizer, schedulers: Sequence[Any], before: float
) -> None:
    """Scale the rates from which schedules compute, so that all later rates change in proportion.

    Raises:
        EditRefusedError: a schedule cannot be scaled; nothing was changed.
    """
    group = optimizer.param_groups[request.group]
    if not schedulers:
        if before > 0:
            scale_scheduler_rates_in_group(group, request.value / before)
        return
    name = type(schedulers[0]).__name__
    if request.value == 0 or before == 0:
        raise EditRefusedError(
            f"the rate {'is' if before == 0 else 'would be'} 0, and {name} computes later rates in "
            "proportion to it; "
            + ("set it when it is not 0" if before == 0 else "choose a very small rate instead")
        )
    factor = request.value / before
    attributes = [_rates_in(each, optimizer, request.group, factor) for each in schedulers]
    scale_scheduler_rates_in_group(group, factor)
    for scheduler, names in zip(schedulers, attributes, strict=True):
        scale_scheduler_rates(scheduler, request.group, factor, names)


def _rates_in(scheduler: Any, optimizer: Optimizer, index: int, factor: float) -> list[str]:
    """Return the attributes of a scheduler to scale.

    Raises:
        EditRefusedError: there are none with which the rates of this group are scaled.
    """
    if not computes_rates_like_torch(scheduler):
        return find_custom_scheduler_rate_attributes(scheduler, optimizer, index, factor)
    reason = why_not_scalable_per_group(scheduler, len(optimizer.param_groups))
    if reason:
        raise EditRefusedError(f"{reason}; set its rates in the training's code")
    return torch_rate_attributes(scheduler)


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
