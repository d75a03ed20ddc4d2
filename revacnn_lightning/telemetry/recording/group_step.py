"""The step of an optimizer on one parameter group."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor

__all__ = ["ParameterGroupStep"]


class ParameterGroupStep:
    """The step that an optimizer makes on the weights of one of its parameter groups."""

    def __init__(self, optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> None:
        self.optimizer = optimizer
        self._group = group

    @functools.cached_property
    def is_scaled_momentum(self) -> bool:
        """Whether Δw is the learning rate times the momentum buffer.

        Then ‖Δw‖ needs no copy of the weights. A fused step does not qualify: the device may skip
        it without the host's knowledge. Nor does one that hooks follow, which may take back a part.
        """
        group = self._group
        return (
            type(self.optimizer) is torch.optim.SGD
            and group["momentum"] != 0
            and not group["nesterov"]
            and not group["fused"]
            and not isinstance(group["lr"], Tensor)
            and not getattr(self.optimizer, "_optimizer_step_post_hooks", ())
        )

    @functools.cached_property
    def momentum_divisor(self) -> float:
        """What to divide the norm of the momentum buffer by to get ‖Δw‖."""
        return 1 / self._group["lr"] if self._group["lr"] else math.inf
