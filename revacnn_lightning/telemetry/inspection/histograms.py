"""Histograms of many values, computed on the device from an even sample of them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["BINS", "MAX_VALUES", "ValueHistogram", "histogram_of", "sample_values"]

BINS = 64
MAX_VALUES = 2**16  # of a layer; a 512×512×3×3 weight has 36 times as many
MAX_DEVIATIONS = 6.0  # root mean squares: a few outliers do not make the bins too wide


class ValueHistogram(NamedTuple):
    """How values are distributed around zero.

    Attributes:
        counts: number of values in each of `BINS` bins of equal width, (BINS,). The outer bins
            also count what lies beyond them.
        limit: the bins cover -limit to limit; 0 if all values are zero.
        nonfinite: number of infinite and NaN values, which no bin counts.
    """

    counts: np.ndarray
    limit: float
    nonfinite: int


def sample_values(tensor: Tensor) -> Tensor:
    """Return every n-th value of a tensor, at most `MAX_VALUES`, as a float32 copy (m,).

    ``n`` has no common divisor with the number of values, so that all positions of a kernel and
    all channels are sampled alike.
    """
    flat = tensor.detach().reshape(-1)
    return flat[:: _stride(flat.numel())].to(torch.float32, copy=True)


def _stride(count: int) -> int:
    stride = max(1, -(-count // MAX_VALUES))
    while math.gcd(stride, count) > 1:
        stride += 1
    return stride


def histogram_of(values: Tensor) -> ValueHistogram:
    """Return the histogram of float32 values (m,) without graph. Synchronizes with the device."""
    is_finite = values.isfinite()
    finite = torch.where(is_finite, values, 0.0)
    largest = finite.abs().amax() if len(values) else finite.sum()
    scaled = finite / largest.clamp_min(torch.finfo(torch.float32).tiny)  # squares of 1e-30 are 0
    mean_square = scaled.square().sum() / is_finite.sum().clamp_min(1)
    share = (MAX_DEVIATIONS * mean_square.sqrt()).clamp(1e-6, 1.0)
    bins = ((scaled / share + 1) * (BINS / 2)).floor().clamp(0, BINS - 1).long()
    counts = torch.bincount(torch.where(is_finite, bins, BINS), minlength=BINS + 1)
    numbers = torch.cat([counts.float(), (largest * share).reshape(1)]).cpu().numpy()
    return ValueHistogram(numbers[:BINS], float(numbers[-1]), int(numbers[BINS]))
