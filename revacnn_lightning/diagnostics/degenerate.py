"""Filters that cannot be compared with the others: dead, not finite, identical to another."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

__all__ = ["DegenerateKind", "find_degenerate", "unit_rows"]

# Directions closer than this count as the same. Half-precision features of one and the same
# filter at two scales differ by about 3e-4.
SAME_DIRECTION = 1e-3


class DegenerateKind(IntEnum):
    """Why a filter has no place among the others."""

    NONE = 0
    DEAD = 1  # all its values are zero
    NONFINITE = 2  # NaN or infinity among its values
    IDENTICAL = 3  # the same direction as a filter before it


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Rows of ``features`` (n, d) at length one, float64; rows of zero length stay zero."""
    rows = np.asarray(features, np.float64)
    largest = np.abs(rows).max(axis=1, initial=0.0, keepdims=True)
    rows = rows / np.where(largest > 0, largest, 1.0)  # squares can neither over- nor underflow
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1.0)


def find_degenerate(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which filters are odd, and which other each identical one equals.

    Args:
        features: (n, d), one row per filter.

    Returns:
        `DegenerateKind` of every row, uint8 (n,), and the index of the first row of the same direction,
        int64 (n,), -1 where the row is not `DegenerateKind.IDENTICAL`. The first of identical filters is
        itself not odd: it stands for all of them.
    """
    features = np.asarray(features)
    odd = np.zeros(len(features), np.uint8)
    same_as = np.full(len(features), -1, np.int64)
    finite = np.isfinite(features).all(axis=1)
    odd[~finite] = DegenerateKind.NONFINITE
    odd[finite & (features == 0).all(axis=1)] = DegenerateKind.DEAD
    sound = np.flatnonzero(odd == DegenerateKind.NONE)
    if len(sound) == 0:
        return odd, same_as
    first = _first_alike(unit_rows(features[sound]))
    twins = first < np.arange(len(sound))
    odd[sound[twins]] = DegenerateKind.IDENTICAL
    same_as[sound[twins]] = sound[first[twins]]
    return odd, same_as


def _first_alike(units: np.ndarray) -> np.ndarray:
    """For each unit row (n, d) the index of the first row in the same direction, (n,)."""
    close = units @ units.T > 1 - SAME_DIRECTION**2 / 2  # |a - b|² = 2 - 2 a·b
    np.fill_diagonal(close, True)
    first = close.argmax(axis=1)
    while (first[first] < first).any():  # a is like b, and b is like one before it
        first = first[first]
    return first
