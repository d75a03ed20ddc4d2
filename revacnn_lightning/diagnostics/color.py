"""First-layer filters that respond to a single color, not to edges or texture."""

from __future__ import annotations

import numpy as np

__all__ = ["find_single_color_filters"]

MIN_SHARE = 0.8  # of a kernel's sum of squares that lies in one color


def find_single_color_filters(kernels: np.ndarray, min_share: float = MIN_SHARE) -> np.ndarray:
    """Find the filters of a layer with RGB input that respond to a single color.

    A filter does if its kernel varies along color only, being nearly constant in space, or if
    nearly all of it reads one of the three channels. A kernel of one pixel is always constant in
    space; for it only the second criterion counts.

    Args:
        kernels: (n, h, w, 3).
        min_share: share of the sum of squares that the spatial mean, or the strongest channel,
            must contain.

    Returns:
        bool (n,); False for kernels that are zero or not finite.
    """
    kernels = np.asarray(kernels, np.float64)
    if kernels.ndim != 4 or kernels.shape[3] != 3 or kernels.size == 0:
        return np.zeros(len(kernels), bool)
    pixels = kernels.shape[1] * kernels.shape[2]
    finite = np.isfinite(kernels).all(axis=(1, 2, 3))
    kernels = np.where(finite[:, None, None, None], kernels, 0)
    total = (kernels**2).sum(axis=(1, 2, 3))
    constant = pixels * (kernels.mean(axis=(1, 2)) ** 2).sum(axis=1) if pixels > 1 else 0 * total
    channel = (kernels**2).sum(axis=(1, 2)).max(axis=1)
    return (total > 0) & (np.maximum(constant, channel) >= min_share * total)
