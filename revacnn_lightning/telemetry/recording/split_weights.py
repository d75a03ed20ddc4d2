"""Weights that are split among the ranks of a training: FSDP, tensor parallelism.

Between two forwards, a rank has some rows of such a weight. FSDP puts the whole weight together for
the forward and the backward, and frees its memory afterwards. Therefore the gradient is that of the
whole weight, as this rank has computed it, and is reduced within the backward. Norms and optimizer
steps are those of the rows of this rank: the filters of other ranks are NaN. No collective is
needed: the mean over all ranks ignores NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.nn.parameter import is_lazy
from torch.utils.hooks import RemovableHandle

from revacnn_lightning.telemetry.conv import filters_first
from revacnn_lightning.telemetry.split_tensors import is_distributed, local_part, local_row_range
from revacnn_lightning.telemetry.unit_layers import UnitLayer, filter_count, is_transposed

__all__ = [
    "LocalFilters",
    "ShardedWeightHooks",
    "is_split",
    "local_filters",
    "reduce_local_filters",
]


def is_split(conv: UnitLayer) -> bool:
    """Return whether this rank has only a part of the weight of a layer now."""
    weight = conv._parameters.get("weight")
    if weight is None or is_lazy(weight):
        return False
    return is_distributed(weight) or weight.dim() < 2


@dataclass(frozen=True)
class LocalFilters:
    """The filters of a weight, or of its gradient, that this rank has.

    Attributes:
        coefficients: (n, ...), as `filters_first` returns them.
        first: the index of the first of these filters.
        width: the number of filters of the layer.
    """

    coefficients: Tensor
    first: int
    width: int

    def expand_to_layer(self, values: Tensor) -> Tensor:
        """Return one number per filter of the layer: (n,) -> (C,); NaN for those of other ranks."""
        if len(values) == self.width:
            return values
        found = values.new_full((self.width,), torch.nan)
        found[self.first : self.first + len(values)] = values
        return found


def local_filters(tensor: Tensor, conv: UnitLayer) -> LocalFilters:
    """Return the filters that this rank has: all, unless the tensor is split.

    None are known where it is split along another dimension than that of the filters.
    """
    width = filter_count(conv)
    if not is_distributed(tensor):
        if tensor.dim() < 2:  # FSDP1 leaves a flat part
            return LocalFilters(tensor.new_empty(0), 0, width)
        filters = filters_first(tensor, conv)
        return LocalFilters(filters, 0, len(filters))  # which may differ from what the layer says
    local = local_part(tensor)
    rows = None if is_transposed(conv) else local_row_range(tensor)
    if rows is None or len(local) != len(rows):
        return LocalFilters(local.new_empty(0), 0, width)
    return LocalFilters(local, rows.start, width)


def reduce_local_filters(
    reduce: Callable[[list[Tensor]], list[Tensor]], weights: Sequence[tuple[UnitLayer, Tensor]]
) -> list[Tensor]:
    """Reduce the coefficients of each filter to one number: (C,) for each layer.

    Args:
        reduce: reduces several layers, (n, ...) -> (n,) each.
        weights: layers with their weights, or with gradients of the same shape.
    """
    found = [local_filters(tensor, conv) for conv, tensor in weights]
    reduced = iter(reduce([each.coefficients for each in found if len(each.coefficients)]))
    return [
        each.expand_to_layer(
            next(reduced) if len(each.coefficients) else each.coefficients.new_empty(0).float()
        )
        for each in found
    ]


class _Layer(Protocol):
    """A layer as `ShardedWeightHooks` uses it."""

    conv: UnitLayer

    @property
    def weights(self) -> Any: ...


class ShardedWeightHooks:
    """Hooks layers with split weights, to observe the weight that FSDP gathers for each forward.

    Args:
        hook_gathered_weight: a function that hooks the present weight of a layer.
    """

    def __init__(self, hook_gathered_weight: Callable[[Any], None]) -> None:
        self._hook_gathered_weight = hook_gathered_weight
        self._handles: list[RemovableHandle] = []

    def attach(self, layers: Iterable[_Layer]) -> None:
        """Hook the layers whose weights are split, and no others."""
        self.detach()
        for layer in layers:
            if layer.weights.is_split:
                # The hooks of FSDP were registered before, so this one is called after them.
                self._handles.append(layer.conv.register_forward_pre_hook(self._hook_of(layer)))

    def detach(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _hook_of(self, layer: _Layer) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, args: Any) -> None:
            if not is_compiling() and not is_split(layer.conv):
                self._hook_gathered_weight(layer.weights)

        return hook
