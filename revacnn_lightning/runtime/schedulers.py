"""Find the learning rate schedulers of a training, and scale the rates that they compute.

A scheduler computes the rate of a group from rates that it keeps: the initial, the largest, the
smallest one. If all of them and the present rate are multiplied by a factor, so is every later
rate. Which attributes hold rates is known for the schedulers of torch; for others it is tried out
on copies (`schedule_trial`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

__all__ = [
    "SCHEDULED_RATES",
    "computes_rates_like_torch",
    "find_schedulers",
    "last_rates",
    "scale_scheduler_rates",
    "scale_scheduler_rates_in_group",
    "schedulers_of",
    "torch_rate_attributes",
    "why_not_scalable_per_group",
]

# Entries of a parameter group, written by schedulers, in units of the learning rate.
SCHEDULED_RATES = ("initial_lr", "max_lr", "min_lr", "swa_lr")
# Attributes of torch's schedulers that hold one rate per group, and those with one for all groups.
PER_GROUP = ("base_lrs", "max_lrs", "min_lrs")
SHARED = ("eta_min",)

MANY = 100  # a longer list holds no schedulers
TORCH_MODULES = ("torch.optim.lr_scheduler", "torch.optim.swa_utils")
TORCH_SCHEDULERS = {
    "ChainedScheduler", "ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts",
    "CyclicLR", "ExponentialLR", "LambdaLR", "LinearLR", "MultiStepLR", "MultiplicativeLR",
    "OneCycleLR", "PolynomialLR", "ReduceLROnPlateau", "SWALR", "SequentialLR", "StepLR",
}  # fmt: skip
# A class that overrides one of these methods computes rates in its own way.
COMPUTING = {"step", "get_lr", "_get_closed_form_lr", "_update_lr", "_reduce_lr"}


def find_schedulers(holders: Iterable[Any]) -> list[Any]:
    """Return the schedulers among the attributes of these objects, also those in lists and dicts.

    A module that steps its scheduler by hand may keep it only as an attribute.
    """
    attributes = (value for holder in holders for value in vars(holder).values())
    return [each for value in attributes for each in _in(value)]


def schedulers_of(optimizer: Optimizer, schedulers: Iterable[Any]) -> list[Any]:
    """Return the schedulers that set rates of this optimizer, those inside others included."""
    found: dict[int, Any] = {}
    for scheduler in schedulers:
        for each in _with_nested(scheduler):
            owner = getattr(each, "optimizer", None)
            # Lightning's wrapper of an optimizer holds it in its attribute `optimizer`.
            if owner is optimizer or getattr(owner, "optimizer", None) is optimizer:
                found[id(each)] = each
    return list(found.values())


def computes_rates_like_torch(scheduler: Any) -> bool:
    """Return whether a scheduler computes its rates as one of torch's does."""
    for cls in type(scheduler).__mro__:
        if cls.__module__ in TORCH_MODULES:
            return cls.__name__ in TORCH_SCHEDULERS
        if COMPUTING & vars(cls).keys():
            return False
    return False


def torch_rate_attributes(scheduler: Any) -> list[str]:
    """Return the attributes of one of torch's schedulers that hold rates."""
    return [name for name in (*PER_GROUP, *SHARED) if name in vars(scheduler)]


def why_not_scalable_per_group(scheduler: Any, groups: int) -> str:
    """Return why a scheduler of torch cannot be scaled for one group alone; "" if it can be."""
    shared = [name for name in SHARED if float(getattr(scheduler, name, 0.0)) != 0.0]
    if groups == 1 or not shared:
        return ""
    return (
        f"{type(scheduler).__name__} has one {shared[0]} for all {groups} parameter groups, so the "
        "rates of one group cannot be scaled alone"
    )


def scale_scheduler_rates_in_group(group: dict[str, Any], factor: float) -> None:
    """Scale the rates that schedulers keep in a parameter group."""
    for name in SCHEDULED_RATES:
        rate = group.get(name)
        # A scheduler may hold the same tensor, so it is not changed in place.
        if isinstance(rate, Tensor):
            group[name] = rate * factor
        elif rate is not None:
            group[name] = float(rate) * factor


def scale_scheduler_rates(
    scheduler: Any, index: int, factor: float, attributes: Sequence[str]
) -> None:
    """Scale the rates of group ``index`` in these attributes of a scheduler.

    The last computed rates are scaled as well: schedulers of users may read them.
    """
    values = vars(scheduler)
    for name in attributes:
        value = values[name]
        if isinstance(value, tuple):
            values[name] = tuple(_scaled(list(value), index, factor))
        elif isinstance(value, list):
            _scaled(value, index, factor)
        else:
            values[name] = value * factor
    _scaled(last_rates(scheduler), index, factor)


def last_rates(scheduler: Any) -> list[Any]:
    """Return the list of the rates that a scheduler set last; an empty one if it has none."""
    try:
        rates = scheduler.get_last_lr()
    except AttributeError:  # it was never stepped, or keeps none
        return []
    return rates if isinstance(rates, list) else []


def _scaled(rates: list[Any], index: int, factor: float) -> list[Any]:
    if index < len(rates):
        rates[index] = rates[index] * factor
    return rates


def _with_nested(scheduler: Any, seen: frozenset[int] = frozenset()) -> Iterator[Any]:
    """Yield a scheduler and those that it runs."""
    if id(scheduler) in seen:
        return
    yield scheduler
    for value in list(vars(scheduler).values()):
        for each in _in(value):
            yield from _with_nested(each, seen | {id(scheduler)})


def _in(value: Any, depth: int = 2) -> Iterator[Any]:
    """Yield the schedulers that a value is or holds, at most so deep in lists and dicts."""
    if isinstance(value, (LRScheduler, ReduceLROnPlateau)):
        yield value
    elif depth and isinstance(value, (list, tuple, dict)) and len(value) <= MANY:
        for each in value.values() if isinstance(value, dict) else value:
            yield from _in(each, depth - 1)
