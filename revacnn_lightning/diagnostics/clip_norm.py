"""The norm at which to clip a gradient that explodes, from the batches before it did.

Recorded is the mean m = (1/K) Σ|g| over the K coefficients of each filter. By Cauchy and Schwarz,
‖g‖₂ ≥ √K m, so √(Σ K m²) over the filters is a lower bound of the norm of their gradients together,
and of the whole gradient. For normally distributed coefficients it is √(2/π) ≈ 0.8 of the norm.

A batch counts as usual while the mean gradient of the first layer is at most `DEPTH_RATIO` times
that of the last one. The usual norm is the median of the bounds of the last usual batches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from revacnn_lightning.diagnostics.verdicts import DEPTH_RATIO

__all__ = ["COMMON_NORM", "norm_bounds", "propose_clip_norm", "usual_norm"]

COMMON_NORM = 1.0
MIN_USUAL = 5  # batches


def norm_bounds(gradients: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Return a lower bound of the norm of the gradient in each batch, (batches,).

    Args:
        gradients: the mean |g| of each filter, (batches, filters); NaN where it was not measured.
        coefficients: how many coefficients each filter has, (filters,).
    """
    squares = coefficients * np.square(gradients, dtype=np.float64)
    bounds: np.ndarray = np.sqrt(np.nansum(squares, axis=1))
    return bounds


def usual_norm(bounds: np.ndarray, layer_means: np.ndarray) -> float:
    """Return the median of the bounds of the usual batches; 0 if there are too few.

    Args:
        bounds: `norm_bounds`, (batches,).
        layer_means: the mean gradient of each layer, (batches, layers), in forward order.
    """
    measured = [_ends(row) for row in layer_means]
    ratios = np.array([first / last if last > 0 else np.nan for first, last in measured])
    usual = bounds[(ratios <= DEPTH_RATIO) & np.isfinite(bounds) & (bounds > 0)]
    return float(np.median(usual)) if len(usual) >= MIN_USUAL else 0.0


def _ends(layer_means: np.ndarray) -> tuple[float, float]:
    """Return the mean gradients of the first and the last layer that the gradient has reached."""
    reached = layer_means[np.isfinite(layer_means) & (layer_means > 0)]
    return (float(reached[0]), float(reached[-1])) if len(reached) > 1 else (np.nan, np.nan)


def propose_clip_norm(usual: float, layers: Sequence[str]) -> tuple[float, str]:
    """Return the norm at which to clip, in two digits, and where it comes from, in words.

    Args:
        usual: `usual_norm`; 0 if it is not known.
        layers: the names of the layers that it is the norm of.
    """
    if usual > 0:
        where = f"the {len(layers)} watched layers" if len(layers) > 1 else layers[0]
        note = (
            f"before the gradient exploded, its norm over {where} was at least {usual:.2g} in the "
            "median batch"
        )
        return float(f"{usual:.2g}"), note
    note = f"no batch is known from before the gradient exploded, so {COMMON_NORM:g}, a common norm"
    return COMMON_NORM, note
