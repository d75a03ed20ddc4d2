"""The mean difference of two paired series of losses, with its confidence interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

__all__ = ["CONFIDENCE", "PairedChange", "paired_change"]

CONFIDENCE = 0.95
MIN_EFFECTIVE = 2.0  # batches, so that the interval has a degree of freedom


@dataclass(frozen=True)
class PairedChange:
    """The mean of the differences, and the limits of its confidence interval.

    Attributes:
        effective: the number of independent batches that say as much as the given ones.
    """

    mean: float
    low: float
    high: float
    effective: float


def paired_change(before: Sequence[float], after: Sequence[float]) -> PairedChange:
    """Return the mean of ``after - before`` with its 95 % confidence interval.

    It is Student's t interval of the differences (Student, 1908). Those of adjacent batches are
    alike, because the networks change little from one to the next, so that the interval of
    independent differences would be too narrow. Therefore n batches count as
    ``n * (1 - r) / (1 + r)``, with the autocorrelation r of adjacent differences where it is
    positive (Zwiers and von Storch, "Taking serial correlation into account in tests of the mean",
    Journal of Climate 8, 1995).

    Args:
        before: the loss of each batch, at least two.
        after: the loss of the same batches.

    Returns:
        NaN if one of the losses is not finite.
    """
    if not np.isfinite([*before, *after]).all():
        return PairedChange(math.nan, math.nan, math.nan, 0.0)
    differences = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    n, mean = len(differences), float(differences.mean())
    spread = float(differences.std(ddof=1))
    r = min(max(0.0, _autocorrelation(differences - mean)), 1.0)
    effective = max(MIN_EFFECTIVE, n * (1 - r) / (1 + r))
    quantile = float(stdtrit(effective - 1, (1 + CONFIDENCE) / 2))
    half = quantile * spread / math.sqrt(effective)
    return PairedChange(mean, mean - half, mean + half, effective)


def _autocorrelation(centered: np.ndarray) -> float:
    """Return the correlation of adjacent values, whose mean is 0; 0 if all are 0."""
    total = float((centered**2).sum())
    return float((centered[1:] * centered[:-1]).sum()) / total if total > 0 else 0.0
