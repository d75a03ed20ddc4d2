"""Filters that are nearly the same: candidates to be merged, or split apart anew."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import complete, fcluster

from revacnn_lightning.diagnostics.degenerate import unit_rows

__all__ = ["ALIKE", "find_near_duplicates"]

ALIKE = 0.95  # least cosine similarity between any two filters of a group
# With fewer coefficients than this, filters cannot but be alike: there are hardly any directions.
LEAST_COEFFICIENTS = 3


def find_near_duplicates(features: np.ndarray, least: float = ALIKE) -> np.ndarray:
    """Which filters are near duplicates of each other, by cosine similarity.

    Complete linkage: every two filters of a group are alike, so a group can be merged as a whole.
    Filters that are zero or not finite are in no group.

    Args:
        features: (n, d), one row per filter: its coefficients, or a projection that keeps angles.
        least: cosine similarity of near duplicates, at least.

    Returns:
        The number of each filter's group, int64 (n,), counted from 0, the largest group first;
        -1 for a filter without near duplicates.
    """
    features = np.asarray(features)
    groups = np.full(len(features), -1, np.int64)
    if features.ndim != 2 or features.shape[1] < LEAST_COEFFICIENTS:
        return groups
    sound = np.flatnonzero(np.isfinite(features).all(axis=1) & features.any(axis=1))
    units = unit_rows(features[sound])
    alike = units @ units.T >= least
    np.fill_diagonal(alike, False)
    paired = np.flatnonzero(alike.any(axis=1))  # the others need not be clustered
    if len(paired) < 2:
        return groups
    labels = _clusters(units[paired], least)
    groups[sound[paired]] = _largest_first(labels)
    return groups


def _clusters(units: np.ndarray, least: float) -> np.ndarray:
    """A label for each unit row (n, d), n >= 2: complete linkage up to this similarity."""
    above = np.triu_indices(len(units), 1)
    distance = np.clip(1 - (units @ units.T)[above], 0, 2)  # (n (n - 1) / 2,)
    return fcluster(complete(distance), 1 - least + 1e-9, criterion="distance") - 1


def _largest_first(labels: np.ndarray) -> np.ndarray:
    """Labels (n,) numbered anew by falling size; -1 where a label stands alone."""
    sizes = np.bincount(labels)
    rank = np.empty(len(sizes), np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    rank[sizes < 2] = -1
    return rank[labels]
