"""Filters as small images: one image per kernel, whatever its number of input channels."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from revacnn_lightning.telemetry.conv import filter_rows
from revacnn_lightning.telemetry.inspection.half_precision import normalized_half
from revacnn_lightning.telemetry.inspection.map_images import MIDDLE, slice_index
from revacnn_lightning.telemetry.unit_layers import UnitLayer, kernel_size

__all__ = ["filter_images"]

STRIP_LENGTH = 16  # up to so many coefficients of a linear layer's filter are one row
MAX_FILTER_SIDE = 32  # pixels of a linear layer's filter
MAX_PIXELS = 2**19  # of all filters of a linear layer together: 1 MB of float16


def filter_images(
    weight: Tensor,
    conv: UnitLayer,
    *,
    mean: bool = False,
    depth: float = MIDDLE,
    input_shape: tuple[int, ...] = (),
) -> np.ndarray:
    """Return an image of each filter of a layer, or of its gradient.

    A kernel of one dimension is one row. Of a kernel of three dimensions it is one slice. A filter
    of a linear layer is an image of its input where that is a flattened map or image; where it is a
    signal, each channel is a row; else its coefficients row by row.

    Args:
        weight: coefficients or gradients, in the shape of the layer's weight.
        conv: the layer.
        mean: show the mean over the input channels instead of the strongest slice, which is the
            one with the largest sum of squares. Has no effect on three input channels of an image.
        depth: which slice of kernels of three dimensions, from 0 for the first to 1 for the last.
        input_shape: (channels, H, W) of what a linear layer reads flattened, (channels, L) of a
            signal or (channels, D, H, W) of a volume; () if it is none of these.

    Returns:
        float16 (C, h, w, 3) for three input channels, shown as red, green and blue; otherwise
        (C, h, w). Magnitudes are at most 1.
    """
    kernels = _kernels(filter_rows(weight, conv), conv, depth, input_shape)  # (C, inputs, h, w)
    if kernels.shape[1] == 3 and len(kernel_size(conv)) != 1:
        return normalized_half(kernels.permute(0, 2, 3, 1))
    if mean:
        return normalized_half(kernels.float().mean(1))
    strongest = kernels.float().square().sum((2, 3)).argmax(1)
    return normalized_half(kernels[torch.arange(len(kernels), device=kernels.device), strongest])


def _kernels(rows: Tensor, conv: UnitLayer, depth: float, input_shape: tuple[int, ...]) -> Tensor:
    """Return the filters (C, K) as images (C, inputs, h, w)."""
    if isinstance(conv, nn.Linear):
        return _linear_kernels(rows, depth, input_shape)
    size = kernel_size(conv)
    kernels = rows.unflatten(1, (-1, *size))
    if len(size) == 1:
        return kernels.unsqueeze(2)
    return kernels if len(size) == 2 else kernels[:, :, slice_index(size[0], depth)]


def _linear_kernels(rows: Tensor, depth: float, input_shape: tuple[int, ...]) -> Tensor:
    """Return the filters of a linear layer, (C, K), as images (C, inputs, h, w), downsampled."""
    if math.prod(input_shape) == rows.shape[1] and len(input_shape) > 1:
        images = rows.unflatten(1, input_shape)
        if len(input_shape) == 2:
            images = images.unsqueeze(1)
        elif len(input_shape) == 4:
            images = images[:, :, slice_index(input_shape[1], depth)]
    else:
        length = _row_length(rows.shape[1])
        missing = -rows.shape[1] % length
        images = nn.functional.pad(rows, (0, missing)).view(len(rows), 1, -1, length)
    side = min(MAX_FILTER_SIDE, max(4, math.isqrt(MAX_PIXELS // max(len(rows), 1))))
    height, width = min(side, images.shape[2]), min(side, images.shape[3])
    if (height, width) == images.shape[2:]:
        return images
    return nn.functional.adaptive_avg_pool2d(images.float(), (height, width))


def _row_length(coefficients: int) -> int:
    """Return how many coefficients are in a row: a long row is folded to one twice as wide as high.

    That is large enough to be seen among the others.
    """
    if coefficients <= STRIP_LENGTH:
        return max(1, coefficients)
    return math.ceil(math.sqrt(2 * coefficients))
