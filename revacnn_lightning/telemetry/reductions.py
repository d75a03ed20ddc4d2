"""Reductions of activation maps and coefficients to one number per filter.

B images, C filters, H×W pixels of a map, K coefficients of a filter. Results are float32 on the
device of the input. Each reduction is tested against its obvious version; the fast ones are shaped
by memory traffic: the maps of a batch are tens of megabytes, so the cost is how often they cross
the memory bus, and an elementwise operation with a temporary of the same size adds two crossings.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "FEW",
    "SHORT_RUN",
    "absolute_sum_per_channel",
    "add_to",
    "concatenate",
    "filter_l1_norm",
    "filter_l1_norms",
    "filter_l2_norm",
    "filter_l2_norms",
    "positive_count_per_channel",
    "signal_to_noise",
    "signals_to_noise",
    "sum_and_positive_count_per_channel",
    "sum_per_channel",
    "sum_per_image_and_channel",
]

# Elements that an elementwise operation writes before they are summed: 512 KB of float32, which
# stays in the second-level cache of one core, so that the temporary never reaches memory. Measured
# on an 8 MB map: Σ|a| takes 0.48 ms this way, 0.87 ms in one piece, 1.17 ms as
# torch.linalg.vector_norm.
BLOCK = 128 * 1024

# Up to this many pixels, summing over the images first is faster than summing runs of pixels that
# are no longer than a few vector registers (4×4 pixels, 512 filters: 0.05 ms instead of 0.19 ms).
# For longer runs one operation is better than two: between convolutions each starts with cold
# caches.
SHORT_RUN = 64

# For so few elements, one operation is always faster than two.
FEW = 8 * 1024

# Gradients are summed in pieces of up to this many coefficients: a temporary of 1.5 MB costs less
# than the operations on several blocks (all weights of mobilenet_v2: 2.2 ms instead of 2.7).
PIECE = 3 * BLOCK

# Layers with filters of one shape are copied side by side and reduced together: an operation on few
# elements costs as much as one on thousands. On a CPU, layers of up to so many coefficients are,
# which a copy keeps in the cache; on a GPU all are, in runs of so many coefficients.
SMALL_LAYER = 16 * 1024
GPU_RUN = 4 * 1024 * 1024

# All dimensions but the first. Reducing over them is one operation where flattening first is two,
# and so close to a convolution the second costs as much as the first.
_INNER_DIMENSIONS = {dims: tuple(range(1, dims)) for dims in range(2, 6)}


# ---------------------------------------------------------------------- activation maps


def sum_per_channel(maps: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the sum over images and pixels: (B, C, H, W) -> (C,), in ``out`` if it is given."""
    is_short = 1 < maps.shape[2] * maps.shape[3] <= SHORT_RUN and maps.numel() > FEW
    if is_short and maps.device.type == "cpu" and maps.is_contiguous():
        return torch.sum(maps.sum(0, dtype=torch.float32), (1, 2), out=out)
    return torch.sum(maps, (0, 2, 3), dtype=torch.float32, out=out)


def absolute_sum_per_channel(maps: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the sum of absolute values over images and pixels: (B, C, H, W) -> (C,)."""
    if maps.device.type != "cpu" or maps.numel() <= FEW:
        return _absolute_sum_in_one_kernel(maps, (0, 2, 3), out)
    total = None
    for block, scratch in _blocks(maps):
        absolute = torch.abs(block, out=scratch)
        part = sum_per_channel(absolute, out if total is None else None)
        total = part if total is None else total.add_(part)
    if total is None:
        return _zeros(maps) if out is None else out.zero_()
    return total


def positive_count_per_channel(maps: Tensor) -> Tensor:
    """Return the number of pixels above zero in all images: (B, C, H, W) -> (C,)."""
    total = None
    for block, scratch in _blocks(maps):
        total = add_to(total, sum_per_channel(torch.gt(block, 0, out=scratch)))
    return _zeros(maps) if total is None else total


def sum_and_positive_count_per_channel(maps: Tensor, *, absolute: bool) -> tuple[Tensor, Tensor]:
    """Return (`absolute_sum_per_channel` or `sum_per_channel`, `positive_count_per_channel`).

    Reads the maps only once.
    """
    total = count = None
    if maps.numel() <= FEW:
        total = absolute_sum_per_channel(maps) if absolute else sum_per_channel(maps)
        return total, positive_count_per_channel(maps)
    for block, scratch in _blocks(maps):
        values = torch.abs(block, out=scratch) if absolute else block
        total = add_to(total, sum_per_channel(values))
        count = add_to(count, sum_per_channel(torch.gt(block, 0, out=scratch)))
    if total is None or count is None:
        return _zeros(maps), _zeros(maps)
    return total, count


def sum_per_image_and_channel(maps: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the sum over the pixels of each image: (B, C, H, W) -> (B, C), or in ``out``."""
    return torch.sum(maps, (2, 3), dtype=torch.float32, out=out)


def concatenate(images: list[Tensor]) -> Tensor:
    """Concatenate along the images; a single tensor is returned without a copy."""
    return images[0] if len(images) == 1 else torch.cat(images)


# ---------------------------------------------------------------------- signal to noise


def signal_to_noise(images: Tensor) -> Tensor:
    """Return |mean| / standard deviation over the images: (B, C) -> (C,).

    NaN for 0 / 0 and for B < 2.
    """
    if len(images) < 2:
        return images.new_full((images.shape[1],), torch.nan)
    mean = images.mean(0)
    variance = (images - mean).square_().sum(0).div_(len(images) - 1)  # var_mean is 10 times slower
    return mean.abs_() / variance.sqrt_()


def signals_to_noise(images_per_layer: Sequence[Tensor]) -> list[Tensor]:
    """Return `signal_to_noise` of several layers, (B, C) each, with few operations."""
    batches: dict[Any, list[int]] = defaultdict(list)
    for index, images in enumerate(images_per_layer):
        batches[len(images), images.device].append(index)
    results: dict[int, Tensor] = {}
    for indices in batches.values():
        for group in _groups(indices, lambda index: images_per_layer[index].numel(), BLOCK):
            widths = [images_per_layer[index].shape[1] for index in group]
            side_by_side = torch.cat([images_per_layer[index] for index in group], 1)
            results.update(zip(group, signal_to_noise(side_by_side).split(widths), strict=True))
    return [results[index] for index in range(len(images_per_layer))]


def _groups(indices: list[int], size: Callable[[int], int], limit: int) -> Iterator[list[int]]:
    """Split the indices into runs of at most ``limit`` elements together, at least one each."""
    group: list[int] = []
    total = 0
    for index in indices:
        if group and total + size(index) > limit:
            yield group
            group, total = [], 0
        group.append(index)
        total += size(index)
    if group:
        yield group


# ---------------------------------------------------------------------- coefficients


def filter_l1_norm(
    filters: Tensor, out: Tensor | None = None, *, may_overwrite: bool = False
) -> Tensor:
    """Return the L1 norm, the sum of absolute values, of each filter: (C, ...) -> (C,).

    Args:
        filters: the coefficients.
        out: float32 (C,), receives the result.
        may_overwrite: whether ``filters`` may be used as scratch memory.
    """
    inner = _INNER_DIMENSIONS[filters.dim()]
    if filters.device.type != "cpu":
        return _absolute_sum_in_one_kernel(filters, inner, out)
    if filters.numel() <= PIECE:
        absolute = filters.abs_() if may_overwrite else filters.abs()
        return torch.sum(absolute, inner, dtype=torch.float32, out=out)
    if out is None:
        out = filters.new_empty(len(filters), dtype=torch.float32)
    step = max(1, PIECE // filters[0].numel())
    scratch = torch.empty_like(filters[:step])
    for start in range(0, len(filters), step):
        block = filters[start : start + step]
        absolute = torch.abs(block, out=scratch[: len(block)])
        out[start : start + step] = absolute.sum(inner, dtype=torch.float32)
    return out


def filter_l2_norm(filters: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the L2 norm of each filter: (C, ...) -> (C,), in ``out`` if it is given."""
    inner = _INNER_DIMENSIONS[filters.dim()]
    if filters.dtype != torch.float64:
        return torch.linalg.vector_norm(filters, 2, inner, dtype=torch.float32, out=out)
    norm = torch.linalg.vector_norm(filters, 2, inner).float()  # does not narrow by itself
    return norm if out is None else out.copy_(norm)


def filter_l1_norms(filters_per_layer: Sequence[Tensor]) -> list[Tensor]:
    """Return `filter_l1_norm` of several layers, with few operations."""

    def of_rows(rows: Tensor) -> Tensor:
        if rows.is_cuda:
            return _absolute_sum_in_one_kernel(rows, (1,))
        return rows.abs_().sum(1, dtype=torch.float32)

    return _side_by_side(filters_per_layer, filter_l1_norm, of_rows)


def filter_l2_norms(filters_per_layer: Sequence[Tensor]) -> list[Tensor]:
    """Return `filter_l2_norm` of several layers, with few operations."""
    return _side_by_side(filters_per_layer, filter_l2_norm, filter_l2_norm)


def _side_by_side(
    layers: Sequence[Tensor],
    reduce: Callable[[Tensor], Tensor],
    reduce_rows: Callable[[Tensor], Tensor],
) -> list[Tensor]:
    """Reduce the filters of each layer.

    Args:
        layers: (C, ...) each.
        reduce: reduces a layer that is not copied.
        reduce_rows: reduces (C, K), a copy that it may overwrite.
    """
    alike: dict[Any, list[int]] = defaultdict(list)
    counts = [filters.numel() for filters in layers]
    for index, (filters, count) in enumerate(zip(layers, counts, strict=True)):
        device = filters.device
        is_small = count <= SMALL_LAYER or device.type == "cuda"
        key = (filters.shape[1:], filters.dtype, device) if is_small and count else index
        alike[key].append(index)
    results: dict[int, Tensor] = {}
    for indices in alike.values():
        limit = GPU_RUN if layers[indices[0]].is_cuda else BLOCK
        for group in _groups(indices, counts.__getitem__, limit):
            if len(group) == 1:
                results[group[0]] = reduce(layers[group[0]])
                continue
            rows = torch.cat([layers[index] for index in group]).flatten(1)
            widths = [layers[index].shape[0] for index in group]
            results.update(zip(group, reduce_rows(rows).split(widths), strict=True))
    return [results[index] for index in range(len(layers))]


# ---------------------------------------------------------------------- helpers


def add_to(total: Tensor | None, part: Tensor) -> Tensor:
    """Add ``part`` to a running total and return it, in place if possible; None is the empty total.

    A total from a forward in inference mode cannot be changed outside of it.
    """
    if total is None:
        return part
    return total + part if total.is_inference() else total.add_(part)


def _blocks(maps: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the maps, a few images at a time, each with a scratch tensor of the same size.

    A GPU gets them in one block: there the number of kernels matters more than memory traffic.
    """
    images = len(maps)
    if images == 0:
        return
    if maps.device.type != "cpu" or maps.numel() <= BLOCK:
        yield maps, torch.empty_like(maps)
        return
    step = max(1, BLOCK // (maps.numel() // images))
    scratch = torch.empty_like(maps[:step])
    for start in range(0, images, step):
        block = maps[start : start + step]
        yield block, scratch[: len(block)]


def _absolute_sum_in_one_kernel(
    values: Tensor, dimensions: tuple[int, ...], out: Tensor | None = None
) -> Tensor:
    """Return the sum of absolute values, for devices on which kernel launches dominate."""
    if values.dtype != torch.float64:
        return torch.linalg.vector_norm(values, 1, dimensions, dtype=torch.float32, out=out)
    norm = torch.linalg.vector_norm(values, 1, dimensions).float()  # does not narrow by itself
    return norm if out is None else out.copy_(norm)


def _zeros(maps: Tensor) -> Tensor:
    return torch.zeros(maps.shape[1], device=maps.device)
