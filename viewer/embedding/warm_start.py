"""Embeddings that start from the previous one, so that filters stay in place.

Known filters start where they were, new ones among their nearest neighbors.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.spatial import cKDTree

from .placement import MIN_PROJECTED
from .tsne import tsne_warm_start
from .umap import umap_warm_start

__all__ = ["embed_from_previous", "has_enough_finite_points", "rows_of_ids"]

N_NEIGHBORS = 5  # among which a new filter is placed
MIN_KNOWN_FRACTION = 0.25  # of the filters

Array = np.ndarray


def has_enough_finite_points(previous: Array) -> bool:
    """Return whether enough rows of ``previous`` (n, 2) are finite to start from them."""
    n_known = int(np.isfinite(previous).all(axis=1).sum())
    return n_known >= max(MIN_PROJECTED, int(MIN_KNOWN_FRACTION * len(previous)))


def embed_from_previous(
    previous: Array, data: Array, method: Literal["tsne", "umap"], data_change: float, seed: int
) -> Array:
    """Return the embedding (n, 2) of ``data`` (n, d), started from ``previous`` (n, 2).

    Args:
        previous: the previous embedding; NaN for new filters.
        data_change: how far the data have changed since ``previous``.
    """
    warm_start = tsne_warm_start if method == "tsne" else umap_warm_start
    return warm_start(data, fill_missing_points(previous, data), data_change, seed)


def rows_of_ids(points: Array, point_ids: Array, wanted_ids: Array) -> Array:
    """Return the rows of ``points`` (m, 2) for the ids ``wanted_ids`` (n,); NaN for unknown ids.

    Args:
        point_ids: the ids of the rows of ``points``, int64 (m,).
    """
    matched = np.full((len(wanted_ids), 2), np.nan)
    rows = {int(id_): row for row, id_ in enumerate(point_ids)}
    for i, id_ in enumerate(wanted_ids.tolist()):
        if id_ in rows:
            matched[i] = points[rows[id_]]
    return matched


def fill_missing_points(points: Array, data: Array) -> Array:
    """Replace NaN rows of ``points`` (n, 2) by a mean of their nearest neighbors in ``data``.

    The `N_NEIGHBORS` neighbors are weighted by the inverse of their distance.
    """
    known = np.isfinite(points).all(axis=1)
    if known.all():
        return points
    tree = cKDTree(data[known])
    distance, nearest = tree.query(data[~known], k=min(N_NEIGHBORS, int(known.sum())))
    distance, nearest = distance.reshape(len(distance), -1), nearest.reshape(len(nearest), -1)
    weight = 1 / (distance + 1e-6)
    weight /= weight.sum(axis=1, keepdims=True)
    filled = points.copy()
    filled[~known] = np.einsum("ij,ijk->ik", weight, points[known][nearest])  # (new, 2)
    return filled
