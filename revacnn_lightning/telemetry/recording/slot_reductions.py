"""Reductions of maps of one shape straight into the slots of their layer.

The operations are chosen before the batch. Each is called with a map and writes to a slot. On a
GPU, and for few elements, there is one operation per statistic.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from revacnn_lightning.telemetry.reductions import (
    FEW,
    SHORT_RUN,
    absolute_sum_per_channel,
    sum_and_positive_count_per_channel,
    sum_per_channel,
)

__all__ = [
    "Reduction",
    "build_gradient_reductions",
    "build_map_reductions",
    "is_never_negative",
    "is_overhead_bound",
]

Reduction = Callable[[Tensor], object]

FEW_IMAGES = 2  # summing over so few first takes longer (400 filters, 8×8 pixels: 29 µs, not 12)

_MAP = (0, 2, 3)  # the dimensions that a sum over a map runs over
_NEVER_NEGATIVE = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid, nn.Softplus)


def is_never_negative(source: nn.Module | None) -> bool:
    """Return whether a module returns no negative values, so that all but zeros are positive."""
    return isinstance(source, _NEVER_NEGATIVE)


def build_map_reductions(
    shape: torch.Size,
    dtype: torch.dtype,
    sum_out: Tensor,
    positive_count_out: Tensor | None,
    *,
    sum_magnitudes: bool,
    has_no_negatives: bool,
) -> tuple[Reduction, ...]:
    """Return functions that reduce activation maps of one shape into the given outputs.

    Args:
        shape: the shape of the maps, (B, C, H, W).
        dtype: the dtype of the maps.
        sum_out: (C,), receives the sum over images and pixels.
        positive_count_out: (C,), receives the `positive_count_per_channel` of the maps; None
            skips it.
        sum_magnitudes: whether to sum absolute values (`absolute_sum_per_channel`), not values
            (`sum_per_channel`).
        has_no_negatives: whether the maps contain no negative values; see `is_never_negative`.
    """
    if is_overhead_bound(shape, sum_out):
        has_norms, count_out = _has_fast_norms(shape, sum_out), positive_count_out
        add_up = _magnitude(dtype, sum_out, has_norms) if sum_magnitudes else _sum(_MAP, sum_out)
        if count_out is None:
            return (add_up,)
        if has_no_negatives and has_norms:
            return add_up, _norm(0, dtype, count_out)
        return add_up, _positive_count(count_out)
    in_one = shape[2] * shape[3] > SHORT_RUN or shape[0] <= FEW_IMAGES
    if positive_count_out is None and not sum_magnitudes and in_one:
        return (_sum(_MAP, sum_out),)
    if positive_count_out is None:
        reduce = absolute_sum_per_channel if sum_magnitudes else sum_per_channel
        return (functools.partial(reduce, out=sum_out),)

    def reduce_in_blocks(maps: Tensor) -> None:
        total, count = sum_and_positive_count_per_channel(maps, absolute=sum_magnitudes)
        sum_out.copy_(total)
        positive_count_out.copy_(count)

    return (reduce_in_blocks,)


def build_gradient_reductions(
    shape: torch.Size,
    dtype: torch.dtype,
    magnitude_out: Tensor | None,
    image_sums_out: Tensor | None,
) -> tuple[Reduction, ...]:
    """Return functions that reduce the gradients of activation maps into the given outputs.

    Args:
        shape: the shape of the gradients, (B, C, H, W).
        dtype: the dtype of the gradients.
        magnitude_out: (C,), receives the `absolute_sum_per_channel` of the gradients; None
            skips it.
        image_sums_out: (B, C), receives the `sum_per_image_and_channel` of the gradients; None
            skips them.
    """
    reductions: list[Reduction] = []
    if magnitude_out is not None and is_overhead_bound(shape, magnitude_out):
        has_norms = _has_fast_norms(shape, magnitude_out)
        reductions.append(_magnitude(dtype, magnitude_out, has_norms))
    elif magnitude_out is not None:
        reductions.append(functools.partial(absolute_sum_per_channel, out=magnitude_out))
    if image_sums_out is not None:
        reductions.append(_sum((2, 3), image_sums_out))
    return tuple(reductions)


def is_overhead_bound(shape: torch.Size, out: Tensor) -> bool:
    """Return whether launching operations takes longer than reducing the elements."""
    return out.device.type != "cpu" or shape.numel() <= FEW


def _has_fast_norms(shape: torch.Size, out: Tensor) -> bool:
    """Return whether one norm is faster than an elementwise operation and a sum.

    On a CPU, torch does not vectorize norms over the images alone (64 images, 128 units: 27 µs
    instead of 5 µs).
    """
    return out.device.type != "cpu" or shape[2] * shape[3] > 1


def _magnitude(dtype: torch.dtype, out: Tensor, has_norms: bool) -> Reduction:
    if has_norms:
        return _norm(1, dtype, out)
    return lambda maps: torch.sum(maps.abs(), _MAP, dtype=torch.float32, out=out)


def _sum(dimensions: tuple[int, ...], out: Tensor) -> Reduction:
    return functools.partial(torch.sum, dim=dimensions, out=out)


def _norm(order: int, dtype: torch.dtype, out: Tensor) -> Reduction:
    """Return the reduction to a norm of each map: 1 sums magnitudes, 0 counts what is not zero."""
    norm = functools.partial(torch.linalg.vector_norm, ord=order, dim=_MAP)
    if dtype != torch.float64:
        return functools.partial(norm, dtype=torch.float32, out=out)
    return lambda maps: out.copy_(norm(maps))  # norms do not narrow by themselves


def _positive_count(out: Tensor) -> Reduction:
    return lambda maps: torch.sum(maps > 0, _MAP, out=out)
