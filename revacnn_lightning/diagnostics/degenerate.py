"""Filters that cannot be compared with others: all zero, not finite, identical to another."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

__all__ = ["ComparisonExclusion", "find_zero_nonfinite_identical", "normalize_rows"]

# Directions closer than this count as identical. Half-precision features of the same filter at two
# scales differ by about 3e-4.
DIRECTION_TOLERANCE = 1e-3


class ComparisonExclusion(IntEnum):
    """Why a filter is excluded from comparisons of filters, if it is."""

    NONE = 0  # it is not
    ZERO = 1  # all its values are zero
    NONFINITE = 2  # some of its values are NaN or infinite
    IDENTICAL = 3  # it has the direction of a filter before it


def normalize_rows(features: np.ndarray) -> np.ndarray:
    """Normalize the rows of ``features`` (n, d) to unit length, float64; zero rows stay zero."""
    rows = np.asarray(features, np.float64)
    largest = np.abs(rows).max(axis=1, initial=0.0, keepdims=True)
    rows = rows / np.where(largest > 0, largest, 1.0)  # squares can neither over- nor underflow
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1.0)


def find_zero_nonfinite_identical(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the filters to exclude from comparisons: zero, not finite, or identical to another.

    Args:
        features: (n, d), one row per filter.

    Returns:
        The `ComparisonExclusion` of every row, uint8 (n,), and the index of the first row in the
        same direction, int64 (n,), which is -1 for rows that are not ``IDENTICAL``. The first of
        several identical filters represents them and is not excluded itself.
    """
    features = np.asarray(features)
    kinds = np.zeros(len(features), np.uint8)
    original = np.full(len(features), -1, np.int64)
    finite = np.isfinite(features).all(axis=1)
    kinds[~finite] = ComparisonExclusion.NONFINITE
    kinds[finite & (features == 0).all(axis=1)] = ComparisonExclusion.ZERO
    candidates = np.flatnonzero(kinds == ComparisonExclusion.NONE)
    if len(candidates) == 0:
        return kinds, original
    first = _first_in_direction(normalize_rows(features[candidates]))
    is_copy = first < np.arange(len(candidates))
    kinds[candidates[is_copy]] = ComparisonExclusion.IDENTICAL
    original[candidates[is_copy]] = candidates[first[is_copy]]
    return kinds, original


def _first_in_direction(units: np.ndarray) -> np.ndarray:
    """Return for each unit row (n, d) the index of the first row in the same direction, (n,)."""
    is_close = units @ units.T > 1 - DIRECTION_TOLERANCE**2 / 2  # |a - b|² = 2 - 2 a·b
    np.fill_diagonal(is_close, True)
    first = is_close.argmax(axis=1)
    while (first[first] < first).any():  # close to a row that is close to an earlier one
        first = first[first]
    return first
