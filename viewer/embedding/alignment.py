"""Continuity between two projections of the same layer: rotation and visible square."""

from __future__ import annotations

import numpy as np

__all__ = ["ViewSquare", "align", "is_finite_and_spread", "next_view_square"]

SQUARE_SMOOTHING = 0.25  # of the change of extent, per projection

Array = np.ndarray
ViewSquare = tuple[float, float, float]  # center x, center y, half width


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


def is_finite_and_spread(points: Array) -> bool:
    """Return whether all points (n, 2) are finite, and they are not all in the same place."""
    return bool(np.isfinite(points).all()) and float(np.ptp(points, axis=0).max()) > 1e-9


def next_view_square(points: Array, previous: ViewSquare | None) -> ViewSquare:
    """Return the square of the plane to show: it follows ``points`` (n, 2) slowly.

    It always contains all points. If ``previous`` is None, it is their bounding square.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    (x, y), half = (low + high) / 2, float((high - low).max()) / 2
    if previous is None:
        return float(x), float(y), half
    x, y = (
        old + SQUARE_SMOOTHING * (new - old) for old, new in zip(previous, (x, y), strict=False)
    )
    inside = float(np.abs(points - (x, y)).max())
    return float(x), float(y), max(inside, previous[2] + SQUARE_SMOOTHING * (half - previous[2]))
