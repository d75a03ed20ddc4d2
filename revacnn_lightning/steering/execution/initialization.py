"""Random values for new and reinitialized entries, drawn as a fresh layer draws them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from revacnn_lightning.steering.computed_tensors import tensor_of_shape
from revacnn_lightning.telemetry.unit_layers import UnitLayer

__all__ = ["initial_values"]


def initial_values(owner: nn.Module, like: Tensor, generator: torch.Generator) -> Tensor:
    """Return random values of the shape, type and device of ``like``, a tensor of ``owner``.

    Convs, linear layers and their parametrizations: uniform in ±1/sqrt(fan in), the default of
    torch (He et al. 2015 with a = sqrt 5). Any other module: normal, with the standard deviation of
    ``like``.
    """
    if isinstance(owner, (UnitLayer, ParametrizationList)):
        weight = like if like.ndim > 1 else tensor_of_shape(owner, "weight")
        weight = like if weight is None else weight
        fan_in = nn.init._calculate_fan_in_and_fan_out(weight)[0] if weight.ndim > 1 else 1
        bound = 1 / math.sqrt(max(fan_in, 1))
        values = torch.rand(like.shape, generator=generator, dtype=torch.float64)
        values = (2 * values - 1) * bound
    else:
        spread = float(like.double().std()) if like.numel() > 1 else 1.0
        values = torch.randn(like.shape, generator=generator, dtype=torch.float64)
        values = values * (spread or 1.0)
    return values.to(like)
