"""Convolutions and their weights, filter by filter."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Conv", "by_filter", "filter_rows", "weight_parameter"]

Conv = nn.Conv2d | nn.ConvTranspose2d


def weight_parameter(conv: Conv) -> Tensor | None:
    """Return the weight parameter; None while it is lazy and where it is parametrized."""
    weight = conv._parameters.get("weight")
    return None if weight is None or nn.parameter.is_lazy(weight) else weight


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
