"""The weights of layers with filters, filter by filter.

Reading ``conv.weight`` may run code of the user: a parametrization computes the weight on every
access, and a spectral norm even changes its buffers. Therefore nothing in this package reads it;
the functions here find the tensors in the module's own tables.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList

from revacnn_lightning.telemetry.unit_layers import (
    UnitLayer,
    filter_count,
    group_count,
    input_count,
    is_transposed,
    kernel_size,
)

__all__ = [
    "device_of",
    "expected_weight_shape",
    "filter_rows",
    "filters_first",
    "parametrization_of",
    "stored_tensor",
    "weight_parameter",
]


def stored_tensor(module: nn.Module, name: str) -> Tensor | None:
    """Return the tensor that the module stores under this name, without computing anything.

    That is a parameter, a buffer or a plain attribute, such as the weight that a pruning mask or
    the hook-based ``weight_norm`` has left there in the last forward. None if nothing is stored, as
    with a parametrization.
    """
    for table in (module._parameters, module._buffers, vars(module)):
        if name in table and isinstance(table[name], Tensor):  # scripted modules have no `get`
            return table[name]
    return None


def parametrization_of(module: nn.Module, name: str = "weight") -> ParametrizationList | None:
    """Return the module whose forward computes this tensor in each access; None if there is none.

    See `torch.nn.utils.parametrize`.
    """
    parametrizations = module._modules.get("parametrizations")
    found = None if parametrizations is None else parametrizations._modules.get(name)
    return found if isinstance(found, ParametrizationList) else None


def weight_parameter(conv: UnitLayer) -> Tensor | None:
    """Return the parameter that stores the coefficients of the layer.

    That is the weight or, where the weight is computed in each forward, the parameter of its shape
    that it is computed from: the direction of a weight norm, the dense weight under a pruning mask.
    None while the conv is lazy, and where there is no such parameter.
    """
    weight = conv._parameters.get("weight")
    if weight is None:
        return _original_weight(conv)
    return None if isinstance(weight, nn.UninitializedParameter) else weight


def _original_weight(conv: UnitLayer) -> Tensor | None:
    """Return the last parameter of the conv, or of its weight's parametrization, with its shape."""
    shape = expected_weight_shape(conv)
    holder = parametrization_of(conv) or conv
    originals = [p for p in holder._parameters.values() if p is not None and not is_lazy(p)]
    return next((p for p in reversed(originals) if p.shape == shape), None)


def expected_weight_shape(conv: UnitLayer) -> torch.Size:
    """Return the shape that the layer's sizes require of its weight."""
    channels = (filter_count(conv), input_count(conv) // group_count(conv))
    if is_transposed(conv):
        channels = (input_count(conv), filter_count(conv) // group_count(conv))
    return torch.Size((*channels, *kernel_size(conv)))


def device_of(module: nn.Module) -> torch.device:
    """Return the device of the module's first parameter or buffer; the CPU if it has none."""
    tensors = itertools.chain(module.parameters(), module.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def filters_first(weight: Tensor, conv: UnitLayer) -> Tensor:
    """Return a weight, or its gradient, with the filters along the first dimension.

    For an ordinary conv and a linear layer that is the weight itself. A transposed conv has a
    weight of shape (in, out / groups, ...), with one group after the other along the first
    dimension; here it becomes (C, K), which is a copy unless kernel and groups are trivial.
    """
    if not is_transposed(conv):
        return weight
    inputs, width, *kernel = weight.shape
    groups = group_count(conv)
    grouped = weight.reshape(groups, inputs // groups, width, *kernel)
    return grouped.transpose(1, 2).reshape(groups * width, -1)


def filter_rows(weight: Tensor, conv: UnitLayer) -> Tensor:
    """Return the coefficients of each filter in a row, (C, K)."""
    return filters_first(weight, conv).flatten(1)
