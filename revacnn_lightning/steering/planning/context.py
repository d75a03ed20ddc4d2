"""`PlanningContext`: what a planner reads besides the request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups

__all__ = ["PlanningContext"]


@dataclass
class PlanningContext:
    """The network to plan for.

    Attributes:
        frozen: returns the indices of a layer's frozen filters.
        copies: names of the modules that are edited along, as copies of others.
    """

    model: nn.Module
    groups: ChannelGroups
    optimizers: Sequence[Optimizer]
    frozen: Callable[[str], list[int]]
    copies: Sequence[str] = ()

    def count_parameters(self) -> int:
        """Return the number of parameter values of the model."""
        return sum(p.numel() for p in self.model.parameters())
