"""Pure reductions: a tensor of a batch in, one number per filter out.

Shapes: B images, C filters (output channels), H×W pixels, K coefficients of one filter
(in_channels / groups × kernel height × kernel width, for a transposed conv the same count seen
from its output). All results are float32 of shape (C,), on the device of the input, and are plain
sums; the recorder divides by the counts in its docstrings, after the copy to the host.

Every function here is tested against its obvious version. The shape of the fast ones is a matter
of memory traffic: the maps of a batch are tens of megabytes, so what costs is how often they cross
the memory bus, and a reduction that writes a temporary of the same size costs two more crossings.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = [
    "Conv",
    "absolute_sum",
    "filter_rows",
    "filter_width",
    "map_sum",
    "positive_count",
    "rows_absolute_sum",
    "rows_norm",
]

Conv = nn.Conv2d | nn.ConvTranspose2d

# Elements that an elementwise step writes before they are summed: 512 KB of float32, which stays
# in the second-level cache of one core, so that the temporary never reaches memory. Measured on
# an 8 MB map: Σ|a| takes 0.48 ms so, 0.87 ms in one piece, 1.17 ms as torch.linalg.vector_norm.
BLOCK = 128 * 1024

# Below this many pixels, summing over the images first is faster than summing pixel runs that are
# shorter than a few vector registers (4×4 pixels, 512 filters: 0.05 ms instead of 0.19 ms).
SHORT_RUN = 64


def map_sum(maps: Tensor) -> Tensor:
    """Sum over images and pixels: (B, C, H, W) -> (C,)."""
    if maps.shape[2] * maps.shape[3] < SHORT_RUN and maps.is_contiguous():
        return maps.sum(0, dtype=torch.float32).sum((1, 2))
    if maps.device.type == "cpu" and not maps.is_contiguous():
        return maps.sum((2, 3), dtype=torch.float32).sum(0)
    return maps.sum((0, 2, 3), dtype=torch.float32)


def absolute_sum(maps: Tensor) -> Tensor:
    """Sum of absolute values over images and pixels: (B, C, H, W) -> (C,)."""
    return _blocked(maps, torch.abs, map_sum)


def positive_count(maps: Tensor) -> Tensor:
    """How many pixels of all images are above zero: (B, C, H, W) -> (C,)."""
    return _blocked(maps, _positive, map_sum)


def _positive(maps: Tensor, out: Tensor) -> Tensor:
    return torch.gt(maps, 0, out=out)


def _blocked(
    maps: Tensor, elementwise: Callable[..., Tensor], reduce: Callable[[Tensor], Tensor]
) -> Tensor:
    """``reduce(elementwise(maps))`` without a temporary the size of the maps."""
    images = len(maps)
    if maps.device.type != "cpu" or maps.numel() <= BLOCK or images == 0:
        return reduce(elementwise(maps, out=torch.empty_like(maps)))
    step = max(1, BLOCK // (maps.numel() // images))
    scratch = torch.empty_like(maps[:step])
    total = maps.new_zeros(maps.shape[1], dtype=torch.float32)
    for begin in range(0, images, step):
        block = maps[begin : begin + step]
        total += reduce(elementwise(block, out=scratch[: len(block)]))
    return total


def filter_width(conv: Conv) -> int:
    """How many filters the conv has now."""
    return conv.out_channels


def filter_rows(weight: Tensor, conv: Conv) -> Tensor:
    """The coefficients (or their gradients) of each filter in a row of its own: (C, K).

    A view wherever the memory allows one: standard and channels_last weights of an ordinary conv.
    The weight of a transposed conv is (in, out / groups, h, w), group after group along the
    first dimension, so there the rows are a copy unless kernel and groups are trivial.
    """
    if isinstance(conv, nn.ConvTranspose2d):
        inputs, width, *kernel = weight.shape
        grouped = weight.reshape(conv.groups, inputs // conv.groups, width, *kernel)
        return grouped.transpose(1, 2).reshape(conv.groups * width, -1)
    if not weight.is_contiguous() and weight.is_contiguous(memory_format=torch.channels_last):
        return weight.permute(0, 2, 3, 1).flatten(1)
    return weight.flatten(1)


def rows_absolute_sum(rows: Tensor) -> Tensor:
    """Sum of absolute values of each row: (C, K) -> (C,)."""
    if rows.device.type != "cpu" or rows.numel() <= BLOCK:
        return rows.abs().sum(1, dtype=torch.float32)
    out = rows.new_empty(len(rows), dtype=torch.float32)
    step = max(1, BLOCK // rows.shape[1])
    scratch = rows.new_empty((step, rows.shape[1]))
    for begin in range(0, len(rows), step):
        block = rows[begin : begin + step]
        absolute = torch.abs(block, out=scratch[: len(block)])
        out[begin : begin + step] = absolute.sum(1, dtype=torch.float32)
    return out


def rows_norm(rows: Tensor) -> Tensor:
    """Euclidean norm of each row: (C, K) -> (C,)."""
    if rows.dtype == torch.float64:
        return torch.linalg.vector_norm(rows, dim=1).float()
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32)
