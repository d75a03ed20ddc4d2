"""Convolutions and their weights, filter by filter.

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

__all__ = [
    "Conv",
    "by_filter",
    "device_of",
    "filter_rows",
    "own_tensor",
    "parametrization_of",
    "weight_parameter",
    "weight_shape",
]

Conv = nn.Conv2d | nn.ConvTranspose2d


def own_tensor(module: nn.Module, name: str) -> Tensor | None:
    """Return the tensor that the module holds under this name, without computing anything.

    That is a parameter, a buffer or a plain attribute, such as the weight that a pruning mask or
    the hook-based ``weight_norm`` has left there in the last forward. None if there is none, as
    with a parametrization.
    """
    for table in (module._parameters, module._buffers, vars(module)):
        tensor = table.get(name)
        if isinstance(tensor, Tensor):
            return tensor
    return None


def parametrization_of(module: nn.Module, name: str = "weight") -> ParametrizationList | None:
    """Return the module whose forward computes this tensor in each access; None if there is none.

    See `torch.nn.utils.parametrize`.
    """
    parametrizations = module._modules.get("parametrizations")
    found = None if parametrizations is None else parametrizations._modules.get(name)
    return found if isinstance(found, ParametrizationList) else None


def weight_parameter(conv: Conv) -> Tensor | None:
    """Return the parameter that holds the coefficients.

    That is the weight or, where the weight is computed in each forward, the parameter of its shape
    that it is computed from: the direction of a weight norm, the dense weight under a pruning mask.
    None while the conv is lazy, and where there is no such parameter.
    """
    weight = conv._parameters.get("weight")
    if weight is None:
        return _original_weight(conv)
    return None if isinstance(weight, nn.UninitializedParameter) else weight


def _original_weight(conv: Conv) -> Tensor | None:
    """Return the last parameter of the conv, or of its weight's parametrization, with its shape."""
    shape = weight_shape(conv)
    holder = parametrization_of(conv) or conv
    originals = [p for p in holder._parameters.values() if p is not None and not is_lazy(p)]
    return next((p for p in reversed(originals) if p.shape == shape), None)


def weight_shape(conv: Conv) -> torch.Size:
    """Return the shape that the conv's sizes require of its weight."""
    channels = (conv.out_channels, conv.in_channels // conv.groups)
    if isinstance(conv, nn.ConvTranspose2d):
        channels = (conv.in_channels, conv.out_channels // conv.groups)
    return torch.Size((*channels, *conv.kernel_size))


def device_of(module: nn.Module) -> torch.device:
    """Return the device of the module's first parameter or buffer; the CPU if it has none."""
    tensors = itertools.chain(module.parameters(), module.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def by_filter(weight: Tensor, conv: Conv) -> Tensor:
    """Return the coefficients, or their gradients, with the filters along the first dimension.

    For an ordinary conv that is the weight itself. A transposed conv has a weight of shape (in,
    out / groups, h, w), with one group after the other along the first dimension; here it becomes
    (C, K), which is a copy unless kernel and groups are trivial.
    """
    if not isinstance(conv, nn.ConvTranspose2d):
        return weight
    inputs, width, *kernel = weight.shape
    grouped = weight.reshape(conv.groups, inputs // conv.groups, width, *kernel)
    return grouped.transpose(1, 2).reshape(conv.groups * width, -1)


def filter_rows(weight: Tensor, conv: Conv) -> Tensor:
    """Return the coefficients of each filter in a row, (C, K)."""
    return by_filter(weight, conv).flatten(1)
