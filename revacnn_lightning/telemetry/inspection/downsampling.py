"""Compact stand-ins for the coefficients and activation maps of a layer."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

__all__ = ["downsample_signal", "project_rows_randomly", "thumbnails"]

FEATURE_DIMENSIONS = 64  # of what the viewer embeds in the plane
MAX_MAP_PIXELS = 2**16  # of all maps of a layer together: 128 KB of float16
MAX_MAP_SIDE = 32  # pixels


def project_rows_randomly(rows: Tensor) -> Tensor:
    """Return at most 64 features per row, such that distances between rows are preserved.

    Rows with more than 64 columns are multiplied by a random Gaussian matrix of variance 1/64
    (Johnson and Lindenstrauss 1984); shorter rows are copied. The result shares no memory with
    ``rows``, which may be a view of a ``.grad`` that training goes on to change.

    Args:
        rows: (C, K).

    Returns:
        float32 (C, min(K, 64)).
    """
    coefficients = rows.shape[1]
    if coefficients <= FEATURE_DIMENSIONS:
        return rows.to(torch.float32, copy=True)
    return rows.float() @ _projection(coefficients, rows.device)


@functools.lru_cache(maxsize=8)
def _projection(coefficients: int, device: torch.device) -> Tensor:
    """Return the projection matrix (K, 64), identical in every process.

    It has its own generator, so that the random state of the training is not touched.
    """
    generator = torch.Generator().manual_seed(coefficients)
    matrix = torch.randn(coefficients, FEATURE_DIMENSIONS, generator=generator)
    return (matrix / math.sqrt(FEATURE_DIMENSIONS)).to(device)


def thumbnails(maps: Tensor) -> Tensor:
    """Average-pool maps (C, H, W) to float32 (C, h, w).

    The sides are at most 32 pixels, and fewer in a wide layer, so that the maps of a layer have
    about 65,000 pixels together at most.
    """
    side = min(MAX_MAP_SIDE, max(4, math.isqrt(MAX_MAP_PIXELS // maps.shape[0])))
    height, width = min(side, maps.shape[1]), min(side, maps.shape[2])
    return nn.functional.adaptive_avg_pool2d(maps.float(), (height, width))


def downsample_signal(values: Tensor, max_length: int) -> Tensor:
    """Return a signal (..., L) of at most ``max_length`` values, whose curve looks the same.

    Of each block, its smallest and its largest value are kept: a mean would cancel out an
    oscillation. A signal that is short enough is returned as it is.
    """
    if values.shape[-1] <= max_length:
        return values
    block = -(-values.shape[-1] // (max_length // 2))
    missing = -values.shape[-1] % block
    padded = torch.cat([values, values[..., -1:].expand(*values.shape[:-1], missing)], -1)
    blocks = padded.unflatten(-1, (-1, block))
    return torch.stack([blocks.amin(-1), blocks.amax(-1)], -1).flatten(-2)
