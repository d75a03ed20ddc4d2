"""Placement of filter images: without overlaps, in a grid, or in a row below the projection."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

__all__ = [
    "DEGENERATE_ROW_Y",
    "MIN_PROJECTED",
    "grid_positions",
    "jitter",
    "place_degenerate_filters",
    "resolve_overlaps",
]

MIN_PROJECTED = 5  # fewer filters are placed in a grid: their distances say nothing
DEGENERATE_ROW_Y = -1.22  # of the degenerate filters, below the square [-1, 1]²
MAX_ROW_PITCH = 0.14

Array = np.ndarray


def resolve_overlaps(points: Array, max_rounds: int = 12) -> Array:
    """Return ``points`` (n, 2) moved apart until their images hardly overlap, in [-1, 1]²."""
    distance = min(0.4, 1.35 / np.sqrt(len(points)))
    points = points.copy()
    for _ in range(max_rounds):
        pairs = cKDTree(points).query_pairs(distance, output_type="ndarray")  # (pairs, 2)
        difference = points[pairs[:, 0]] - points[pairs[:, 1]]
        length = np.linalg.norm(difference, axis=1, keepdims=True)
        push = 0.3 * (distance - length) * difference / np.maximum(length, 1e-9)
        for axis in (0, 1):
            points[:, axis] += np.bincount(pairs[:, 0], push[:, axis], len(points))
            points[:, axis] -= np.bincount(pairs[:, 1], push[:, axis], len(points))
        points = np.clip(points, -1.0, 1.0)
    return points


def jitter(points: Array, seed: int) -> Array:
    """Return ``points`` (n, 2) with Gaussian noise of their own scale; unchanged for seed 0."""
    if seed == 0:
        return points
    noise = np.random.default_rng(seed).normal(size=points.shape)
    return np.asarray(points + noise * points.std())


def grid_positions(n_points: int) -> Array:
    """Return positions (n_points, 2) in a grid, row by row, in [-1, 1]²."""
    if n_points == 0:
        return np.zeros((0, 2))
    columns = int(np.ceil(np.sqrt(n_points)))
    rows = -(-n_points // columns)
    i = np.arange(n_points)
    x = (i % columns + 0.5) / columns * 2 - 1
    y = 1 - (i // columns + 0.5) / rows * 2
    return np.stack([x, y], axis=1) * (0.7 if n_points < MIN_PROJECTED else 0.95)


def place_degenerate_filters(kinds: Array) -> Array:
    """Return positions (n, 2) of degenerate filters in a row, with gaps between their kinds.

    Args:
        kinds: `ComparisonExclusion` of each filter, uint8 (n,).
    """
    order = np.argsort(kinds, kind="stable")
    n_kinds_before = np.searchsorted(np.unique(kinds), kinds[order])
    place = np.arange(len(kinds)) + 0.6 * n_kinds_before
    pitch = min(MAX_ROW_PITCH, 2 / max(1.0, float(place.max(initial=0.0))))
    positions = np.empty((len(kinds), 2))
    positions[order] = np.stack([-1 + pitch * place, np.full(len(kinds), DEGENERATE_ROW_Y)], axis=1)
    return positions
