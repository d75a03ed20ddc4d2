"""Where the pictures of filters are put: apart from each other, in a grid, or in a row aside."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

__all__ = ["ASIDE_Y", "SMALLEST", "aside", "grid", "shaken", "spread"]

SMALLEST = 5  # fewer filters than this stand in a fixed grid: nothing can be said of likeness
ASIDE_Y = -1.22  # the row of the odd filters, below the frame [-1, 1]²
ASIDE_PITCH = 0.14

Array = np.ndarray


def spread(points: Array, rounds: int = 12) -> Array:
    """``points`` (n, 2) pushed apart where pictures of them would hide each other, in [-1, 1]²."""
    distance = min(0.4, 1.35 / np.sqrt(len(points)))
    points = points.copy()
    for _ in range(rounds):
        pairs = cKDTree(points).query_pairs(distance, output_type="ndarray")  # (pairs, 2)
        apart = points[pairs[:, 0]] - points[pairs[:, 1]]
        length = np.linalg.norm(apart, axis=1, keepdims=True)
        push = 0.3 * (distance - length) * apart / np.maximum(length, 1e-9)
        for axis in (0, 1):
            points[:, axis] += np.bincount(pairs[:, 0], push[:, axis], len(points))
            points[:, axis] -= np.bincount(pairs[:, 1], push[:, axis], len(points))
        points = np.clip(points, -1.0, 1.0)
    return points


def shaken(points: Array, seed: int) -> Array:
    """``points`` (n, 2), each moved at random; with the seed 0 as they are."""
    if seed == 0:
        return points
    noise = np.random.default_rng(seed).normal(size=points.shape)
    return np.asarray(points + noise * points.std())


def grid(n: int) -> Array:
    """Fixed places (n, 2) of a few filters, row by row."""
    if n == 0:
        return np.zeros((0, 2))
    columns = int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    i = np.arange(n)
    x = (i % columns + 0.5) / columns * 2 - 1
    y = 1 - (i // columns + 0.5) / rows * 2
    return np.stack([x, y], axis=1) * (0.7 if n < SMALLEST else 0.95)


def aside(degenerate: Array) -> Array:
    """Places (n, 2) of the degenerate filters, by `DegenerateKind`: dead, not finite, identical, with gaps."""
    order = np.argsort(degenerate, kind="stable")
    sorts_before = np.searchsorted(np.unique(degenerate), degenerate[order])
    place = np.arange(len(degenerate)) + 0.6 * sorts_before
    pitch = min(ASIDE_PITCH, 2 / max(1.0, float(place.max(initial=0.0))))
    row = np.empty((len(degenerate), 2))
    row[order] = np.stack([-1 + pitch * place, np.full(len(degenerate), ASIDE_Y)], axis=1)
    return row
