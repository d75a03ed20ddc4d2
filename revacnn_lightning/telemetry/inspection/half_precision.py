"""Arrays as viewers receive them: float16, without a scale."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["normalized_half"]


def normalized_half(tensor: Tensor) -> np.ndarray:
    """Return the tensor on the host as float16, divided by its largest finite magnitude.

    Images and embeddings do not depend on the scale, and float16 represents magnitudes up to 1
    without overflow. Infinite and NaN elements stay infinite and NaN, an empty tensor stays empty.
    """
    tensor = tensor.detach().float()
    if not tensor.numel():
        return tensor.half().cpu().numpy()
    largest = torch.nan_to_num(tensor, nan=0.0, posinf=0.0, neginf=0.0).abs().amax()
    return (tensor / largest.clamp_min(1e-30)).half().cpu().numpy()
