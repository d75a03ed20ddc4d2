"""Finds out by trial how the rates of a scheduler that torch does not define can be scaled.

Copies of the scheduler step a copy of the optimizer's parameter groups, once as they are and once
with some attributes scaled. The attributes are the right ones if every later rate is scaled by the
same factor. The scheduler itself is never stepped.
"""

from __future__ import annotations

import copy
import itertools
import random
import re
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.runtime.schedulers import (
    computes_rates_like_torch,
    scale_scheduler_rates,
    scale_scheduler_rates_in_group,
    schedulers_of,
    torch_rate_attributes,
)

__all__ = ["find_custom_scheduler_rate_attributes"]

TRIAL_STEPS = 1000
MAX_NAMES = 4  # up to this many attributes, every combination of them is tried
TOLERANCE = 1e-6  # relative; rates may be float32 tensors
RATE_NAME = re.compile(r"(^|_)(lrs?|eta|rates?)(_|$)")
PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, type,
         types.FunctionType, types.BuiltinFunctionType)  # fmt: skip

Rates = list[list[float]]  # [step][group]


def find_custom_scheduler_rate_attributes(
    scheduler: Any, optimizer: Optimizer, group_index: int, factor: float
) -> list[str]:
    """Return the attributes to scale so that all later rates of group ``group_index`` are scaled.

    Args:
        scheduler: a scheduler of a class that torch does not define.
        optimizer: the optimizer whose rates the scheduler sets.
        group_index: the index of the parameter group.
        factor: the factor that is to scale the rates.

    Raises:
        EditRefusedError: the scheduler cannot be copied or stepped, or no attributes will do.
    """
    name = type(scheduler).__name__
    _check_copyable(scheduler, optimizer, name)
    plain = _rates(scheduler, optimizer, lambda copied, group: None, name)
    for names in _combinations(scheduler, len(optimizer.param_groups)):

        def scale(copied: Any, groups: list[dict[str, Any]], names: list[str] = names) -> None:
            group = groups[group_index]
            group["lr"] = group["lr"] * factor
            scale_scheduler_rates_in_group(group, factor)
            scale_scheduler_rates(copied, group_index, factor, names)
            for each in _nested_of_torch(copied):
                scale_scheduler_rates(each, group_index, factor, torch_rate_attributes(each))

        if _is_scaled(plain, _rates(scheduler, optimizer, scale, name), group_index, factor):
            return names
    raise EditRefusedError(
        f"the schedule {name} of this training computes rates that do not follow a new rate in "
        "proportion; set its rates in the training's code"
    )


def _combinations(scheduler: Any, groups: int) -> Iterator[list[str]]:
    """Yield the attributes that may hold rates, most of them first."""
    values = vars(scheduler)
    names = [
        name
        for name in values
        if RATE_NAME.search(name) and name != "_last_lr" and _holds(values[name], groups)
    ]
    if len(names) > MAX_NAMES:
        yield names
        names = [name for name in names if isinstance(values[name], list)]
    for count in range(min(len(names), MAX_NAMES), -1, -1):
        yield from (list(each) for each in itertools.combinations(names, count))


def _holds(value: Any, groups: int) -> bool:
    """Return whether a value may be a rate, or one rate per group."""
    if isinstance(value, (list, tuple)):
        return len(value) == groups and all(_holds(each, 1) for each in value)
    return groups == 1 and isinstance(value, (int, float, Tensor)) and not isinstance(value, bool)


def _rates(
    scheduler: Any, optimizer: Optimizer, change: Callable[[Any, Any], None], name: str
) -> Rates:
    """Return the rates that a changed copy of the scheduler sets."""
    stub = _Stub(optimizer)
    copied = copy.deepcopy(scheduler, {id(optimizer): stub, id(scheduler.optimizer): stub})
    change(copied, stub.param_groups)
    rates: Rates = []
    python_state = random.getstate()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while len(rates) < TRIAL_STEPS:
            try:
                copied.step()
            except Exception as error:  # of the user's code
                if not rates:
                    raise EditRefusedError(
                        f"the schedule {name} of this training cannot be tried out "
                        f"({type(error).__name__}: {error}); set its rates in the training's code"
                    ) from error
                break  # such a schedule ends after a number of steps
            rates.append([float(group["lr"]) for group in stub.param_groups])
    random.setstate(python_state)
    return rates


class _Stub(Optimizer):
    """An optimizer with copies of another one's parameter groups, without its parameters."""

    def __init__(self, optimizer: Optimizer) -> None:
        groups = [
            {k: copy.deepcopy(v) for k, v in group.items() if k != "params"}
            for group in optimizer.param_groups
        ]
        super().__init__([{"params": [torch.zeros(())], **group} for group in groups], {})
        self.defaults = copy.deepcopy(optimizer.defaults)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Do nothing: only schedulers step."""


def _nested_of_torch(scheduler: Any) -> list[Any]:
    inside = schedulers_of(scheduler.optimizer, [scheduler])
    return [each for each in inside if each is not scheduler and computes_rates_like_torch(each)]


def _is_scaled(plain: Rates, scaled: Rates, index: int, factor: float) -> bool:
    """Return whether the rates of one group are scaled, and those of all others are not."""
    if len(plain) != len(scaled):
        return False
    for before, after in zip(plain, scaled, strict=True):
        for group, (old, new) in enumerate(zip(before, after, strict=True)):
            expected = old * (factor if group == index else 1.0)
            if not abs(new - expected) <= TOLERANCE * abs(expected):
                return False
    return True


def _check_copyable(scheduler: Any, optimizer: Optimizer, name: str) -> None:
    """Check that a copy of the scheduler shares nothing with the training that it could change."""
    seen = {id(optimizer), id(scheduler.optimizer)}

    def find_foreign(value: Any) -> Any:
        if isinstance(value, (*PLAIN, Tensor)) or id(value) in seen:
            return None
        seen.add(id(value))
        if isinstance(value, types.MethodType):
            return find_foreign(value.__self__)
        if isinstance(value, (list, tuple, set)):
            return next((f for f in map(find_foreign, value) if f is not None), None)
        if isinstance(value, dict):
            return find_foreign(list(value.values()))
        if isinstance(value, (torch.nn.Module, Optimizer)) or not hasattr(value, "__dict__"):
            return value
        if hasattr(value, "step") or callable(value):  # a scheduler, or a function object
            return find_foreign(vars(value))
        return value

    foreign = find_foreign(scheduler)
    if foreign is not None:
        raise EditRefusedError(
            f"the schedule {name} of this training cannot be copied to try it out, because it "
            f"refers to a {type(foreign).__name__}; set its rates in the training's code"
        )
