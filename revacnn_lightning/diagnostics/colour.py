"""First-layer filters that see nothing but one colour: no edge, no texture."""

from __future__ import annotations

import numpy as np

__all__ = ["find_single_color"]

PART = 0.8  # of a kernel's sum of squares that must lie in one colour


def find_single_color(kernels: np.ndarray, part: float = PART) -> np.ndarray:
    """Which filters of a layer that reads red, green and blue respond to a single colour.

    That is so where the kernel varies along colour only, being nearly constant in space, or where
    nearly all of it reads one of the three channels. A kernel of one pixel is constant in space by
    nature; of it only the second is asked.

    Args:
        kernels: (n, h, w, 3).
        part: of the kernel's sum of squares that its spatial mean, or its strongest channel, must
            hold.

    Returns:
        bool (n,); False for kernels that are zero or not finite.
    """
    kernels = np.asarray(kernels, np.float64)
    if kernels.ndim != 4 or kernels.shape[3] != 3 or kernels.size == 0:
        return np.zeros(len(kernels), bool)
    pixels = kernels.shape[1] * kernels.shape[2]
    finite = np.isfinite(kernels).all(axis=(1, 2, 3))
    kernels = np.where(finite[:, None, None, None], kernels, 0)
    whole = (kernels**2).sum(axis=(1, 2, 3))
    flat = pixels * (kernels.mean(axis=(1, 2)) ** 2).sum(axis=1) if pixels > 1 else 0 * whole
    channel = (kernels**2).sum(axis=(1, 2)).max(axis=1)
    return (whole > 0) & (np.maximum(flat, channel) >= part * whole)
