"""`PlanningContext`: what a planner reads besides the request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import nn
from torch.optim import Optimizer

from revacnn_lightning.steering.computed_tensors import ComputedTensor, computed_tensors
from revacnn_lightning.steering.planning.lookup import find_owner_and_tensor
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.telemetry.module_tree import list_named_parameters

__all__ = ["PlanningContext"]

SPECTRAL_NORM = "_SpectralNorm"  # torch has no public name for its parametrization


@dataclass
class PlanningContext:
    """The network to plan for.

    Attributes:
        frozen: a function that returns the indices of a layer's frozen filters.
        copies: the names of the modules that are copies of others, which are edited along.
        rate: a function that returns the factor of a layer's learning rate.
    """

    model: nn.Module
    groups: ChannelGroups
    optimizers: Sequence[Optimizer]
    frozen: Callable[[str], list[int]]
    copies: Sequence[str] = ()
    rate: Callable[[str], float] = lambda layer: 1.0

    @cached_property
    def computed(self) -> dict[str, ComputedTensor]:
        """Original -> the tensor that is computed from it in each forward."""
        found = computed_tensors(self.model)
        return {name: each for each in found for name in each.originals}

    def gains_of(self, tensor_name: str, dim: int) -> dict[str, str]:
        """Return the gains of an edit along a dimension of a weight norm's direction.

        They are arguments of `TensorEdit` and `ValueEdit`; any other tensor has none.
        """
        computed = self.computed.get(tensor_name)
        if computed is None or not computed.gain or computed.direction != tensor_name:
            return {}
        return {"entry_gain" if self._has_entries(computed.gain, dim) else "gain": computed.gain}

    def entry_gain_of(self, tensor_name: str, dim: int) -> str:
        """Return the tensor that scales the entries of this one along ``dim``; "" without."""
        return self.gains_of(tensor_name, dim).get("entry_gain", "")

    def direction_of(self, tensor_name: str) -> str:
        """Return the direction of a weight norm whose gain this tensor is; "" for any other."""
        computed = self.computed.get(tensor_name)
        return computed.direction if computed is not None and computed.gain == tensor_name else ""

    def _has_entries(self, gain: str, dim: int) -> bool:
        shape = find_owner_and_tensor(self.model, gain)[1].shape
        return dim < len(shape) and shape[dim] > 1

    def is_mask(self, tensor_name: str) -> bool:
        """Return whether this tensor is the mask of pruned entries."""
        computed = self.computed.get(tensor_name)
        return computed is not None and computed.mask == tensor_name

    def is_singular_vector(self, tensor_name: str) -> bool:
        """Return whether this tensor is a singular vector of a spectral norm."""
        computed = self.computed.get(tensor_name)
        if computed is not None and tensor_name in computed.vectors:
            return True
        return type(find_owner_and_tensor(self.model, tensor_name)[0]).__name__ == SPECTRAL_NORM

    def count_parameters(self) -> int:
        """Return the number of parameter values of the model."""
        return sum(p.numel() for _, p in list_named_parameters(self.model))
