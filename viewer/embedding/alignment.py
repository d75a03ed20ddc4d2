"""Continuity between two projections of the same layer: initial positions, rotation, view frame."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

__all__ = ["Frame", "align", "fill_missing", "is_valid", "match_rows", "smooth_frame"]

N_NEIGHBORS = 5  # among which a new filter is placed
FRAME_SMOOTHING = 0.25  # of the change of extent, per projection

Array = np.ndarray
Frame = tuple[float, float, float]  # center x, center y, half width


def match_rows(points: Array, ids: Array, wanted: Array) -> Array:
    """Return the rows of ``points`` (m, 2) for the ids ``wanted`` (n,); NaN for unknown ids.

    Args:
        ids: of the rows of ``points``, int64 (m,).
    """
    matched = np.full((len(wanted), 2), np.nan)
    rows = {int(id_): row for row, id_ in enumerate(ids)}
    for i, id_ in enumerate(wanted.tolist()):
        if id_ in rows:
            matched[i] = points[rows[id_]]
    return matched


def fill_missing(points: Array, data: Array) -> Array:
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


def align(points: Array, target: Array) -> Array:
    """Return ``points`` (n, 2) rotated, reflected and shifted to fit ``target`` (n, 2).

    Solves the orthogonal Procrustes problem (Schönemann, 1966) over the rows of ``target`` that
    are finite. With fewer than three, the points are returned unchanged.
    """
    known = np.isfinite(target).all(axis=1)
    if known.sum() < 3:
        return points
    center, target_center = points[known].mean(axis=0), target[known].mean(axis=0)
    u, _, vt = np.linalg.svd((points[known] - center).T @ (target[known] - target_center))
    return (points - center) @ (u @ vt) + target_center


def is_valid(points: Array) -> bool:
    """Return whether the points (n, 2) are finite and do not coincide."""
    return bool(np.isfinite(points).all()) and float(np.ptp(points, axis=0).max()) > 1e-9


def smooth_frame(points: Array, last: Frame | None) -> Frame:
    """Return the square around ``points`` (n, 2), which changes slowly from the last one.

    It always contains all points. With ``last`` None, it is their bounding square.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    (x, y), half = (low + high) / 2, float((high - low).max()) / 2
    if last is None:
        return float(x), float(y), half
    x, y = (old + FRAME_SMOOTHING * (new - old) for old, new in zip(last, (x, y), strict=False))
    inside = float(np.abs(points - (x, y)).max())
    return float(x), float(y), max(inside, last[2] + FRAME_SMOOTHING * (half - last[2]))
