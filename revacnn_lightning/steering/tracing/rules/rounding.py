"""The rounding unit of the arithmetic that computed a layer's output.

On Nvidia GPUs torch multiplies single precision as TF32, with 10 bits of mantissa, where it is
configured to: by default in convolutions, not in matrix products.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["conv_rounding_unit", "matmul_rounding_unit"]

TF32 = 2.0**-10


def conv_rounding_unit(output: Tensor) -> float:
    """Return the rounding unit of a convolution; 0 for integers."""
    settings: Any = torch.backends.cudnn
    return _rounding_unit(output, getattr(settings, "conv", None), settings)


def matmul_rounding_unit(output: Tensor) -> float:
    """Return the rounding unit of a matrix product; 0 for integers."""
    settings: Any = torch.backends.cuda.matmul
    return _rounding_unit(output, settings, settings)


def _rounding_unit(output: Tensor, newer: Any, older: Any) -> float:
    """Return the unit by the settings of newer and of older versions of torch."""
    if output.dtype == torch.float32 and output.device.type == "cuda":
        precision = getattr(newer, "fp32_precision", None)
        if precision is None:  # torch before 2.9
            precision = "tf32" if older.allow_tf32 else "ieee"
        if precision != "ieee":
            return TF32
    return float(torch.finfo(output.dtype).eps) if output.is_floating_point() else 0.0
