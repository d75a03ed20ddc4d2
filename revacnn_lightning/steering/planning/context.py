"""What all planners share: what they may look at, the table of them, and checks of names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.optim import Optimizer

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.steering.planning.plan import EditPlan
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups

__all__ = ["PLANNERS", "Context", "check_filters", "conv_named", "planner"]


@dataclass
class Context:
    """What planning may look at. ``frozen``: layer -> indices of its frozen filters."""

    model: nn.Module
    channels: ChannelGroups
    optimizers: Sequence[Optimizer]
    frozen: Callable[[str], list[int]]


Planner = Callable[[Context, Any], EditPlan]
PLANNERS: dict[type, Planner] = {}


def planner(kind: type) -> Callable[[Planner], Planner]:
    """Register the planner of a kind of request."""

    def register(function: Planner) -> Planner:
        PLANNERS[kind] = function
        return function

    return register


def conv_named(model: nn.Module, name: str) -> _ConvNd:
    """The conv of this name.

    Raises:
        Refused: there is no such layer, or it is no conv.
    """
    try:
        module = model.get_submodule(name)
    except AttributeError as error:
        raise EditRefusedError(f"there is no layer {name!r} in this network") from error
    if not isinstance(module, _ConvNd):
        raise EditRefusedError(
            f"{name!r} is a {type(module).__name__}, not a conv; only convs have filters"
        )
    return module


def check_filters(conv: _ConvNd, layer: str, filters: Sequence[int]) -> None:
    """Refuse indices that are no filters of this conv, or that are listed twice."""
    if not filters:
        raise EditRefusedError(f"no filter of {layer} was named")
    for index in filters:
        if not 0 <= index < conv.out_channels:
            raise EditRefusedError(
                f"{layer} has no filter {index}; its filters are 0 to {conv.out_channels - 1}"
            )
    if len(set(filters)) != len(filters):
        raise EditRefusedError(f"a filter of {layer} is listed twice in {list(filters)}")
