"""Units of a layer whose activations are nearly those of another unit, or of the others together.

Two filters may have different coefficients and compute the same, and nearly equal coefficients may
compute different things behind different inputs. Therefore these measures compare activations.
"""

from __future__ import annotations

import numpy as np

__all__ = ["TWIN", "best_twins", "explained_by_others", "twin_groups"]

TWIN = 0.95  # R² of twins
SAMPLES_PER_UNIT = 3  # fewer samples fit noise
RIDGE = 1e-4  # of the mean variance of a unit


def best_twins(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each unit the other unit that explains it best.

    R² is the squared correlation of the activations of two units: the share of the variance of one
    that a multiple of the other, plus a constant, explains. Cost: n·C² multiplications.

    Args:
        samples: activations of C units at the same n positions of images, (n, C).

    Returns:
        The index of the other unit, int64 (C,), -1 for a unit that is constant or not finite; R²,
        0 to 1, (C,), NaN for such a unit; and the factor by which the unit is stronger than its
        twin, the ratio of their standard deviations, negative if the correlation is, (C,).
    """
    n_units = samples.shape[1]
    twin, share = np.full(n_units, -1, np.int64), np.full(n_units, np.nan)
    factor = np.full(n_units, np.nan)
    columns, spread = _standardized(samples)
    known = np.flatnonzero(spread > 0)
    if len(known) < 2:
        return twin, share, factor
    correlation = columns[:, known].T @ columns[:, known] / len(samples)
    np.fill_diagonal(correlation, 0.0)
    best = np.abs(correlation).argmax(1)
    found = correlation[np.arange(len(known)), best]
    twin[known] = known[best]
    share[known] = np.minimum(found**2, 1.0)
    factor[known] = np.sign(found) * spread[known] / spread[known[best]]
    return twin, share, factor


def explained_by_others(samples: np.ndarray) -> np.ndarray:
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


def twin_groups(twin: np.ndarray, share: np.ndarray, factor: np.ndarray) -> list[list[int]]:
    """Return the groups of units that are twins of each other, the strongest unit first.

    Twins have an R² of at least `TWIN` and a positive factor. Units are in a group if a chain of
    best twins connects them.

    Args:
        twin: as `best_twins` returns it, (C,).
        share: likewise.
        factor: likewise.
    """
    group_of = np.arange(len(twin))
    pairs = np.flatnonzero((twin >= 0) & (share >= TWIN) & (factor > 0))
    for unit in pairs.tolist():
        group_of[group_of == group_of[unit]] = group_of[twin[unit]]
    strength = np.ones(len(twin))
    strength[pairs] = factor[pairs]
    groups = [np.flatnonzero(group_of == label) for label in np.unique(group_of[pairs])]
    return [sorted(group.tolist(), key=lambda unit: -strength[unit]) for group in groups]


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
