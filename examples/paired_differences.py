"""Paired differences with their intervals, and what they say about steering."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

__all__ = ["MIN_PAIRS", "NOT_SHOWN", "PAYS", "TOO_FEW", "WORSE", "Difference",
           "paired_difference", "steering_verdict"]  # fmt: skip

MIN_PAIRS = 5  # fewer say nothing
PAYS, WORSE, NOT_SHOWN = "pays", "does not pay: worse", "not shown"
TOO_FEW = "too few networks"


class Difference(NamedTuple):
    """The mean of paired differences with its 95 % interval, by Student's t."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return "–"
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def paired_difference(first: np.ndarray, second: np.ndarray) -> Difference:
    """Return ``first`` minus ``second``, (n,) each, in pairs; NaN for too few pairs."""
    differences = np.asarray(first, float) - np.asarray(second, float)
    n = len(differences)
    if n < MIN_PAIRS:
        return Difference(*[math.nan] * 3)
    mean, error = differences.mean(), differences.std(ddof=1) / math.sqrt(n)
    half = float(student.ppf(0.975, n - 1) * error)
    return Difference(float(mean), float(mean) - half, float(mean) + half)


def steering_verdict(difference: Difference) -> str:
    """Return in words whether steering pays, by what it gains over something else."""
    if math.isnan(difference.mean):
        return TOO_FEW
    if difference.low > 0:
        return PAYS
    return WORSE if difference.high < 0 else NOT_SHOWN
