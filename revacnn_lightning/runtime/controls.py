"""What a person may do to the run itself: hold it, save it, end it, set its learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor
from torch.optim import Optimizer

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.messages import ParameterGroup
from revacnn_lightning.protocol.requests import SetHyperparameter

__all__ = ["Controls", "TrainerControls", "groups_of", "set_hyperparameter"]

# What learning-rate schedules keep in a parameter group or in themselves, in units of the rate.
SCHEDULED_RATES = ("initial_lr", "max_lr", "min_lr")


class Controls(Protocol):
    """The run as the session may steer it."""

    @property
    def optimizers(self) -> Sequence[Optimizer]: ...

    @property
    def schedulers(self) -> Sequence[Any]: ...

    def checkpoint(self, name: str) -> str:
        """Save a checkpoint; returns its path."""

    def stop(self) -> None:
        """End the training after the current batch."""


class TrainerControls:
    """`Controls` of a Lightning Trainer."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    @property
    def optimizers(self) -> Sequence[Optimizer]:
        return self._trainer.optimizers

    @property
    def schedulers(self) -> Sequence[Any]:
        return [config.scheduler for config in self._trainer.lr_scheduler_configs]

    def checkpoint(self, name: str) -> str:
        path = Path(self._trainer.default_root_dir) / "revacnn" / f"{name}.ckpt"
        self._trainer.save_checkpoint(path)
        return str(path)

    def stop(self) -> None:
        self._trainer.should_stop = True


def groups_of(optimizers: Sequence[Optimizer]) -> list[ParameterGroup]:
    """The parameter groups of all optimizers, as a viewer is told of them."""
    return [
        ParameterGroup(
            optimizer=i,
            group=j,
            optimizer_type=type(optimizer).__name__,
            parameter_count=sum(parameter.numel() for parameter in group["params"]),
            learning_rate=_number(group.get("lr")),
            weight_decay=_number(group.get("weight_decay")),
        )
        for i, optimizer in enumerate(optimizers)
        for j, group in enumerate(optimizer.param_groups)
    ]


def set_hyperparameter(
    request: SetHyperparameter, optimizers: Sequence[Optimizer], schedulers: Sequence[Any]
) -> str:
    """Carry out the request; returns what was done, in words.

    Raises:
        Refused: no such group, no such hyper-parameter in it, or a value out of range.
    """
    if not math.isfinite(request.value) or request.value < 0:
        raise EditRefusedError(
            f"{request.name} must be a finite number of at least 0, not {request.value}"
        )
    if not 0 <= request.optimizer < len(optimizers):
        raise EditRefusedError(
            f"there is no optimizer {request.optimizer}; there are {len(optimizers)}"
        )
    optimizer = optimizers[request.optimizer]
    if not 0 <= request.group < len(optimizer.param_groups):
        raise EditRefusedError(
            f"optimizer {request.optimizer} has no parameter group {request.group}; "
            f"it has {len(optimizer.param_groups)}"
        )
    group = optimizer.param_groups[request.group]
    if request.name not in group:
        raise EditRefusedError(f"{type(optimizer).__name__} has no {request.name}")
    before = float(group[request.name])
    _assign(group, request.name, request.value)
    if request.name == "lr" and before > 0:
        _scale_schedules(group, request.group, optimizer, schedulers, request.value / before)
    return f"{request.name} {before:g} → {request.value:g}"


def _scale_schedules(
    group: dict[str, Any],
    index: int,
    optimizer: Optimizer,
    schedulers: Sequence[Any],
    factor: float,
) -> None:
    """Keep the schedule's shape from here on: scale the rates that it computes with."""
    for name in SCHEDULED_RATES:
        if _number(group.get(name)) is not None:
            _assign(group, name, float(group[name]) * factor)
    for scheduler in schedulers:
        bases = getattr(scheduler, "base_lrs", None)
        if getattr(scheduler, "optimizer", None) is optimizer and bases and index < len(bases):
            bases[index] = float(bases[index]) * factor


def _assign(group: dict[str, Any], name: str, value: float) -> None:
    """Set a number in a parameter group; a tensor (capturable optimizers) stays the same tensor."""
    if isinstance(group[name], Tensor):
        group[name].fill_(value)
    else:
        group[name] = value


def _number(value: Any) -> float | None:
    if isinstance(value, (int, float, Tensor)) and not isinstance(value, bool):
        return float(value)
    return None
