"""Nearly identical filters: candidates to be merged or reinitialized."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import complete, fcluster

from revacnn_lightning.diagnostics.degenerate import normalize_rows

__all__ = ["MIN_SIMILARITY", "group_near_duplicates"]

MIN_SIMILARITY = 0.95  # cosine similarity between any two filters of a group
# Filters with fewer coefficients are similar by necessity: there are few directions.
MIN_COEFFICIENTS = 3


def group_near_duplicates(
    features: np.ndarray, min_similarity: float = MIN_SIMILARITY
) -> np.ndarray:
    """Group the filters that are near duplicates of each other, by cosine similarity.

    Complete linkage: any two filters of a group are similar, so that a group can be merged as a
    whole. Filters that are zero or not finite are in no group.

    Args:
        features: (n, d), one row per filter: its coefficients, or a projection that preserves
            angles.
        min_similarity: the least cosine similarity of near duplicates.

    Returns:
        The group of each filter, int64 (n,), numbered from 0 by decreasing size; -1 for a filter
        without near duplicates.
    """
    features = np.asarray(features)
    groups = np.full(len(features), -1, np.int64)
    if features.ndim != 2 or features.shape[1] < MIN_COEFFICIENTS:
        return groups
    candidates = np.flatnonzero(np.isfinite(features).all(axis=1) & features.any(axis=1))
    units = normalize_rows(features[candidates])
    is_similar = units @ units.T >= min_similarity
    np.fill_diagonal(is_similar, False)
    paired = np.flatnonzero(is_similar.any(axis=1))  # the others need no clustering
    if len(paired) < 2:
        return groups
    labels = _cluster(units[paired], min_similarity)
    groups[candidates[paired]] = _number_by_size(labels)
    return groups


def _cluster(units: np.ndarray, min_similarity: float) -> np.ndarray:
    """Return a label for each unit row (n, d), n >= 2, by complete linkage."""
    upper = np.triu_indices(len(units), 1)
    distance = np.clip(1 - (units @ units.T)[upper], 0, 2)  # (n (n - 1) / 2,)
    threshold = 1 - min_similarity + 1e-9
    return fcluster(complete(distance), threshold, criterion="distance") - 1


def _number_by_size(labels: np.ndarray) -> np.ndarray:
    """Renumber the labels (n,) by decreasing size; -1 for labels that occur once."""
    sizes = np.bincount(labels)
    rank = np.empty(len(sizes), np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    rank[sizes < 2] = -1
    return rank[labels]
