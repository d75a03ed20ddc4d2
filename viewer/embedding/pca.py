"""Principal component analysis."""

from __future__ import annotations

import numpy as np

__all__ = ["center_and_limit_dimensions", "principal_components"]

MAX_DIMENSIONS = 50  # distances are computed between this many principal components

Array = np.ndarray


def principal_components(data: Array, n_components: int = 2) -> Array:
    """Return the first principal components of ``data`` (rows, d), float64 (rows, n_components)."""
    from sklearn.decomposition import PCA  # half a second, which only the worker has to spend

    solver = "covariance_eigh" if len(data) > data.shape[1] else "full"
    return np.asarray(PCA(n_components, svd_solver=solver).fit_transform(data), np.float64)


def center_and_limit_dimensions(data: Array) -> Array:
    """Return ``data`` (rows, d) centered, with `MAX_DIMENSIONS` columns at most."""
    if min(data.shape) <= MAX_DIMENSIONS:
        return data - data.mean(axis=0)
    return principal_components(data, MAX_DIMENSIONS)
