"""Units of a layer whose activations are nearly those of another unit, or of the others together.

Two filters may have different coefficients and compute the same, and nearly equal coefficients may
compute different things behind different inputs. Therefore these measures compare activations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["TWIN", "TwinUnitGroup", "find_twins", "r_squared_from_others"]

TWIN = 0.95  # R² of twins
SAMPLES_PER_UNIT = 3  # fewer samples fit noise
RIDGE = 1e-4  # of the mean variance of a unit


@dataclass(frozen=True)
class TwinUnitGroup:
    """Units that are twins of each other, the strongest first.

    Attributes:
        units: indices.
        share: the least R² of two of them.
        scales: for each unit, the factor by which the activation of the first has to be multiplied
            to be as close to its own as possible, by least squares; the first is 1.
    """

    units: list[int]
    min_r_squared: float
    scales: list[float]


def find_twins(samples: np.ndarray) -> list[TwinUnitGroup]:
    """Return groups of units, each of which is a multiple of every other one of its group.

    R² is the squared correlation of the activations of two units: the share of the variance of one
    that a multiple of the other, plus a constant, explains. Twins have an R² of at least `TWIN` and
    a positive correlation. Groups are gathered around the strongest unit that is left. Constant
    units and those that are not finite have no twin. Cost: n·C² multiplications.

    Args:
        samples: activations of C units at the same n positions of images, (n, C).
    """
    columns, spread = _standardized(samples)
    correlation = columns.T @ columns / max(1, len(samples))
    is_close = correlation > np.sqrt(TWIN)
    groups, is_free = [], spread > 0
    for first in np.argsort(-spread, kind="stable").tolist():
        if not is_free[first]:
            continue
        group = [first]
        for unit in np.flatnonzero(is_close[first] & is_free).tolist():
            if unit != first and is_close[unit, group].all():
                group.append(unit)
        is_free[group] = False
        if len(group) > 1:
            group.sort(key=lambda unit: -spread[unit])
            share = float(correlation[np.ix_(group, group)].min() ** 2)
            scales = correlation[first, group] * spread[group] / spread[first]
            groups.append(TwinUnitGroup(group, min(share, 1.0), [1.0, *scales[1:].tolist()]))
    return groups


def r_squared_from_others(samples: np.ndarray) -> np.ndarray:
    """Return R² of each unit by all others together, at most 1, (C,).

    A linear model of the other units is fitted on every second sample; R² is measured on the rest,
    so that it is not larger by chance, and below 0 where the model is worse than the mean. NaN for
    constant units, and everywhere with fewer than `SAMPLES_PER_UNIT` samples per unit in a half.
    Cost: n·C² + C³ multiplications.

    Args:
        samples: activations of C units at the same n positions of images, (n, C).
    """
    share = np.full(samples.shape[1], np.nan)
    columns, spread = _standardized(samples)
    known = np.flatnonzero(spread > 0)
    fitted, tested = columns[::2, known], columns[1::2, known]
    if len(known) < 2 or len(tested) < SAMPLES_PER_UNIT * len(known):
        return share
    covariance = fitted.T @ fitted / len(fitted) + RIDGE * np.eye(len(known))
    precision = np.linalg.inv(covariance)
    # The best prediction of unit i is -Σ_{j≠i} P_ij x_j / P_ii: what remains is (P x)_i / P_ii.
    remaining = tested @ precision / np.diag(precision)
    variance = ((tested - tested.mean(0)) ** 2).mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share[known] = 1 - (remaining**2).mean(0) / variance
    share[~np.isfinite(share)] = np.nan
    return share


def _standardized(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns with mean 0 and variance 1, and their standard deviations, (C,).

    Columns that are constant or not finite are zero, and so are their deviations.
    """
    values = np.asarray(samples, np.float64)
    values = np.where(np.isfinite(values).all(0), values, 0.0)
    centered = values - values.mean(0)
    spread = np.sqrt((centered**2).mean(0))
    spread[spread <= 1e-12 * np.abs(values).max(initial=0.0)] = 0.0
    return centered / np.where(spread > 0, spread, np.inf), spread
