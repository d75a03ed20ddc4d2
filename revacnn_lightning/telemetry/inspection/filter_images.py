"""Filters as small images: one image per kernel, whatever its number of input channels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from revacnn_lightning.telemetry.conv import Conv, filter_rows
from revacnn_lightning.telemetry.inspection.half_precision import normalized_half

__all__ = ["filter_images"]


def filter_images(weight: Tensor, conv: Conv, *, mean: bool = False) -> np.ndarray:
    """Return an image of each filter of ``conv``, or of its gradient.

    Args:
        weight: coefficients or gradients, in the shape of the conv's weight.
        mean: show the mean over the input channels instead of the strongest slice, which is the
            one with the largest sum of squares. Has no effect on three input channels.

    Returns:
        float16 (C, h, w, 3) for three input channels, shown as red, green and blue; otherwise
        (C, h, w). Magnitudes are at most 1.
    """
    kernels = filter_rows(weight, conv).unflatten(1, (-1, *conv.kernel_size))  # (C, inputs, h, w)
    if kernels.shape[1] == 3:
        return normalized_half(kernels.permute(0, 2, 3, 1))
    if mean:
        return normalized_half(kernels.float().mean(1))
    strongest = kernels.float().square().sum((2, 3)).argmax(1)
    return normalized_half(kernels[torch.arange(len(kernels), device=kernels.device), strongest])
