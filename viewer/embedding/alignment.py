"""Continuity between two projections of the same layer: rotation and view frame."""

from __future__ import annotations

import numpy as np

__all__ = ["Frame", "align", "is_valid", "smooth_frame"]

FRAME_SMOOTHING = 0.25  # of the change of extent, per projection

Array = np.ndarray
Frame = tuple[float, float, float]  # center x, center y, half width


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
