"""Reductions of maps of one shape straight into the slots of their layer.

Which operations these are is decided before the batch. Each is called with a map, and its result is
not used. Where operations dominate, on a GPU and for few elements, there is one per statistic.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from revacnn_lightning.telemetry.reductions import (
    FEW,
    SHORT_RUN,
    absolute_sum,
    map_sum,
    map_sums,
)

__all__ = [
    "Reduction",
    "gradient_reductions",
    "is_never_negative",
    "is_small",
    "map_reductions",
]

Reduction = Callable[[Tensor], object]

FEW_IMAGES = 2  # summing over so few first takes longer (400 filters, 8×8 pixels: 29 µs, not 12)

_MAP = (0, 2, 3)  # the dimensions that a sum over a map runs over
_NEVER_NEGATIVE = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid, nn.Softplus)


def is_never_negative(source: nn.Module | None) -> bool:
    """Return whether a module returns no negative values, so that all but zeros are positive."""
    return isinstance(source, _NEVER_NEGATIVE)


def map_reductions(
    shape: torch.Size,
    dtype: torch.dtype,
    total: Tensor,
    positive: Tensor | None,
    *,
    absolute: bool,
    never_negative: bool,
) -> tuple[Reduction, ...]:
    """Return what reduces activation maps.

    Args:
        shape: of the maps, (B, C, H, W).
        dtype: of the maps.
        total: (C,), receives their `absolute_sum` or `map_sum`.
        positive: (C,), receives their `positive_count`; None: nobody needs it.
        absolute: whether the magnitudes are summed.
        never_negative: see `is_never_negative`.
    """
    if is_small(shape, total):
        has_norms = _has_fast_norms(shape, total)
        add_up = _magnitude(dtype, total, has_norms) if absolute else _sum(_MAP, total)
        if positive is None:
            return (add_up,)
        if never_negative and has_norms:
            return add_up, _norm(0, dtype, positive)
        return add_up, _positive_count(positive)
    in_one = shape[2] * shape[3] > SHORT_RUN or shape[0] <= FEW_IMAGES
    if positive is None and not absolute and in_one:
        return (_sum(_MAP, total),)
    if positive is None:
        return (functools.partial(absolute_sum if absolute else map_sum, out=total),)

    def reduce_in_blocks(maps: Tensor) -> None:
        sums = map_sums(maps, absolute=absolute)
        total.copy_(sums[0])
        positive.copy_(sums[1])

    return (reduce_in_blocks,)


def gradient_reductions(
    shape: torch.Size, dtype: torch.dtype, magnitude: Tensor | None, images: Tensor | None
) -> tuple[Reduction, ...]:
    """Return what reduces the gradients of activation maps.

    Args:
        shape: of the gradients, (B, C, H, W).
        dtype: of the gradients.
        magnitude: (C,), receives their `absolute_sum`; None: nobody needs it.
        images: (B, C), receives their `pixel_sums`; None: nobody needs them.
    """
    reductions: list[Reduction] = []
    if magnitude is not None and is_small(shape, magnitude):
        has_norms = _has_fast_norms(shape, magnitude)
        reductions.append(_magnitude(dtype, magnitude, has_norms))
    elif magnitude is not None:
        reductions.append(functools.partial(absolute_sum, out=magnitude))
    if images is not None:
        reductions.append(_sum((2, 3), images))
    return tuple(reductions)


def is_small(shape: torch.Size, out: Tensor) -> bool:
    """Return whether operations cost more than elements."""
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
