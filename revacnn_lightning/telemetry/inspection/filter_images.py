"""Filters as small pictures: what is seen of kernels with many input channels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from revacnn_lightning.telemetry.statistics import Conv, filter_rows

__all__ = ["half", "pictures"]


def pictures(weight: Tensor, conv: Conv, *, mean: bool = False) -> np.ndarray:
    """The coefficients of each filter, or their gradients, as a picture.

    Args:
        weight: of the shape of the conv's weight.
        mean: of kernels with any other number of inputs than three, show the mean over the inputs
            rather than the slice of the strongest input (the largest sum of squares).

    Returns:
        float16 (C, h, w, 3) where there are three inputs, taken as red, green and blue, else
        (C, h, w). At most 1 in magnitude: a picture knows no scale.
    """
    kernels = filter_rows(weight, conv).unflatten(1, (-1, *conv.kernel_size))  # (C, inputs, h, w)
    if kernels.shape[1] == 3:
        return half(kernels.permute(0, 2, 3, 1))
    if mean:
        return half(kernels.float().mean(1))
    strongest = kernels.float().square().sum((2, 3)).argmax(1)
    return half(kernels[torch.arange(len(kernels), device=kernels.device), strongest])


def half(tensor: Tensor) -> np.ndarray:
    """To the host as float16, scaled to at most 1 in magnitude, which float16 holds for sure."""
    tensor = tensor.float()
    largest = torch.nan_to_num(tensor, nan=0.0, posinf=0.0, neginf=0.0).abs().amax()
    return (tensor / largest.clamp_min(1e-30)).half().cpu().numpy()
