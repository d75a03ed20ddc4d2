"""The statistics of a filter, and the reductions they are made of.

B images, C filters (output channels), H×W pixels of a map, K coefficients of a filter
(in_channels / groups × kernel height × kernel width; of a transposed conv, seen from its output).
L is the loss of the batch, w the filter's coefficients, a its *activation map*: the output of the
non-linearity that follows the conv (directly or after a batch-norm) where these are modules, else
the conv's own output.

gradient
    mean over the K coefficients of |∂L/∂w|, of this batch alone: not of the batches accumulated
    before it, and before clipping. Several backward passes between two ``zero_grad`` are one
    gradient, their sum.
activation
    Σ over the pixels of a, mean over the images; of a conv's own output: Σ|a|
weight_norm
    ‖w‖₂ as the batch leaves it
update_ratio
    ‖Δw‖₂ / ‖w‖₂ of the last optimizer step; NaN before the first
optimizer_gradient
    mean over the K coefficients of |gradient that the last optimizer step used|: accumulated,
    unscaled, clipped; NaN before the first step
activation_gradient
    mean over images and pixels of |∂L/∂a|
firing
    share of the pixels of all images with a > 0, from 0 to 1
signal_to_noise
    |mean| / standard deviation over the images of (Σ over the pixels of ∂L/∂a); NaN where nothing
    varies, as in a dead filter, and of a single image

A conv called several times in a batch has a map of each call: they count as further images. What
activation checkpointing computes a second time does not count again.

The reductions return float32 on the device of their input. Each is tested against its obvious
version; the shape of the fast ones is a matter of memory traffic. The maps of a batch are tens of
megabytes, so what costs is how often they cross the memory bus, and an elementwise step that writes
a temporary of the same size costs two more crossings.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "DEFAULT",
    "MAP_GRADIENTS",
    "OF_STEPS",
    "PROTECTED",
    "STATISTICS",
    "WHILE_LOOKED_AT",
    "Conv",
    "absolute_sum",
    "by_filter",
    "coefficient_norm",
    "coefficient_sum",
    "filter_rows",
    "image_sums",
    "joined",
    "map_sum",
    "map_sums",
    "positive_count",
    "signal_to_noise",
    "signals_to_noise",
]

DEFAULT = ("gradient", "activation", "weight_norm", "update_ratio")
STATISTICS = (
    *DEFAULT,
    "optimizer_gradient",
    "activation_gradient",
    "firing",
    "signal_to_noise",
)

# Dearer; gathered of all layers where asked for, else of a layer while somebody looks at it.
WHILE_LOOKED_AT = frozenset({"activation_gradient", "firing", "signal_to_noise"})
# These two drive the network view: gathered on every batch, whatever they cost.
PROTECTED = frozenset({"gradient", "activation"})
OF_STEPS = frozenset({"update_ratio", "optimizer_gradient"})
MAP_GRADIENTS = frozenset({"activation_gradient", "signal_to_noise"})

Conv = nn.Conv2d | nn.ConvTranspose2d

# Elements that an elementwise step writes before they are summed: 512 KB of float32, which stays
# in the second-level cache of one core, so that the temporary never reaches memory. Measured on
# an 8 MB map: Σ|a| takes 0.48 ms so, 0.87 ms in one piece, 1.17 ms as torch.linalg.vector_norm.
BLOCK = 128 * 1024

# Up to this many pixels, summing over the images first is faster than summing pixel runs that are
# no longer than a few vector registers (4×4 pixels, 512 filters: 0.05 ms instead of 0.19 ms). For
# longer runs one operation is better than two: between convolutions each begins with cold caches.
SHORT_RUN = 64

# Gradients of up to this many coefficients are summed in one piece: a temporary of 1.5 MB costs
# less than the operations on several blocks (all weights of mobilenet_v2: 2.2 ms instead of 2.7).
PIECE = 3 * BLOCK


def map_sum(maps: Tensor) -> Tensor:
    """Sum over images and pixels: (B, C, H, W) -> (C,)."""
    short = maps.shape[2] * maps.shape[3] <= SHORT_RUN
    if short and maps.device.type == "cpu" and maps.is_contiguous():
        return maps.sum(0, dtype=torch.float32).sum((1, 2))
    return maps.sum((0, 2, 3), dtype=torch.float32)


def absolute_sum(maps: Tensor) -> Tensor:
    """Sum of absolute values over images and pixels: (B, C, H, W) -> (C,)."""
    if maps.device.type != "cpu":
        return _magnitudes(maps, (0, 2, 3))
    total = None
    for block, scratch in _blocks(maps):
        total = _plus(total, map_sum(torch.abs(block, out=scratch)))
    return _zeros(maps) if total is None else total


def positive_count(maps: Tensor) -> Tensor:
    """How many pixels of all images are above zero: (B, C, H, W) -> (C,)."""
    total = None
    for block, scratch in _blocks(maps):
        total = _plus(total, map_sum(torch.gt(block, 0, out=scratch)))
    return _zeros(maps) if total is None else total


def map_sums(maps: Tensor, *, absolute: bool) -> tuple[Tensor, Tensor]:
    """(`absolute_sum` or `map_sum`, `positive_count`), reading the maps only once."""
    total = count = None
    for block, scratch in _blocks(maps):
        values = torch.abs(block, out=scratch) if absolute else block
        total = _plus(total, map_sum(values))
        count = _plus(count, map_sum(torch.gt(block, 0, out=scratch)))
    if total is None or count is None:
        return _zeros(maps), _zeros(maps)
    return total, count


def joined(images: list[Tensor]) -> Tensor:
    """One batch of several, along the first dimension."""
    return images[0] if len(images) == 1 else torch.cat(images)  # of one it would be a copy


def image_sums(maps: Tensor) -> Tensor:
    """Sum over the pixels of each image: (B, C, H, W) -> (B, C)."""
    return maps.sum((2, 3), dtype=torch.float32)


def signals_to_noise(places: Sequence[Tensor]) -> list[Tensor]:
    """`signal_to_noise` of several places, (B, C) each, with few operations."""
    alike: dict[Any, list[int]] = defaultdict(list)
    for index, images in enumerate(places):
        alike[len(images), images.device].append(index)
    found: dict[int, Tensor] = {}
    for indices in alike.values():
        for some in _portions(indices, lambda index: places[index].numel()):
            widths = [places[index].shape[1] for index in some]
            side_by_side = torch.cat([places[index] for index in some], 1)
            found.update(zip(some, signal_to_noise(side_by_side).split(widths), strict=True))
    return [found[index] for index in range(len(places))]


def signal_to_noise(images: Tensor) -> Tensor:
    """|mean| / standard deviation over the images: (B, C) -> (C,). NaN for 0 / 0 and for B < 2."""
    if len(images) < 2:
        return images.new_full((images.shape[1],), torch.nan)
    mean = images.mean(0)
    variance = (images - mean).square_().sum(0).div_(len(images) - 1)  # var_mean is 10 times slower
    return mean.abs_() / variance.sqrt_()


def by_filter(weight: Tensor, conv: Conv) -> Tensor:
    """The coefficients (or their gradients) with the filters along the first dimension.

    That is the weight itself for an ordinary conv. The weight of a transposed conv is (in, out /
    groups, h, w), group after group along the first dimension; here it becomes (C, K), a copy
    unless kernel and groups are trivial.
    """
    if not isinstance(conv, nn.ConvTranspose2d):
        return weight
    inputs, width, *kernel = weight.shape
    grouped = weight.reshape(conv.groups, inputs // conv.groups, width, *kernel)
    return grouped.transpose(1, 2).reshape(conv.groups * width, -1)


def filter_rows(weight: Tensor, conv: Conv) -> Tensor:
    """The coefficients of each filter in a row of its own: (C, K)."""
    return by_filter(weight, conv).flatten(1)


def coefficient_sum(filters: Tensor) -> Tensor:
    """Sum of absolute values of each filter: (C, ...) -> (C,)."""
    rest = _REST[filters.dim()]
    if filters.device.type != "cpu":
        return _magnitudes(filters, rest)
    if filters.numel() <= PIECE:
        return filters.abs().sum(rest, dtype=torch.float32)
    out = filters.new_empty(len(filters), dtype=torch.float32)
    step = max(1, BLOCK // filters[0].numel())
    scratch = torch.empty_like(filters[:step])
    for begin in range(0, len(filters), step):
        block = filters[begin : begin + step]
        absolute = torch.abs(block, out=scratch[: len(block)])
        out[begin : begin + step] = absolute.sum(rest, dtype=torch.float32)
    return out


def coefficient_norm(filters: Tensor) -> Tensor:
    """Euclidean norm of each filter: (C, ...) -> (C,)."""
    norm = torch.linalg.vector_norm(filters, 2, _REST[filters.dim()])
    return norm if norm.dtype == torch.float32 else norm.float()


# All dimensions but the first. Reducing over them is one operation where flattening first is two,
# and so close to a convolution the second costs as much as the first.
_REST = {2: (1,), 4: (1, 2, 3)}


def _blocks(maps: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The maps, a few images at a time, each with a scratch tensor of the same size.

    On a GPU all at once: there the number of kernels counts more than the memory traffic.
    """
    images = len(maps)
    if images == 0:
        return
    if maps.device.type != "cpu" or maps.numel() <= BLOCK:
        yield maps, torch.empty_like(maps)
        return
    step = max(1, BLOCK // (maps.numel() // images))
    scratch = torch.empty_like(maps[:step])
    for begin in range(0, images, step):
        block = maps[begin : begin + step]
        yield block, scratch[: len(block)]


def _magnitudes(values: Tensor, over: tuple[int, ...]) -> Tensor:
    """Sum of absolute values in one kernel, for devices on which launching is what costs."""
    wide = values.dtype == torch.float64  # which the norm would not narrow
    norm = torch.linalg.vector_norm(values, 1, over, dtype=None if wide else torch.float32)
    return norm.float()


def _portions(indices: list[int], size: Callable[[int], int]) -> Iterator[list[int]]:
    """Runs of the indices whose sizes sum up to a block at most, or of a single one."""
    portion: list[int] = []
    total = 0
    for index in indices:
        if portion and total + size(index) > BLOCK:
            yield portion
            portion, total = [], 0
        portion.append(index)
        total += size(index)
    if portion:
        yield portion


def _plus(total: Tensor | None, part: Tensor) -> Tensor:
    return part if total is None else total.add_(part)


def _zeros(maps: Tensor) -> Tensor:
    return torch.zeros(maps.shape[1], device=maps.device)
