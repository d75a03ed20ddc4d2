"""Initial coordinates of an embedding that starts from the previous one."""

from __future__ import annotations

import numpy as np

from viewer.embedding.warm_start import fill_missing_points, has_enough_finite_points, rows_of_ids

POINTS = np.array([[0.0, 1.0], [2.0, 3.0]])


def test_known_filters_keep_their_coordinates_and_new_ones_have_none() -> None:
    matched = rows_of_ids(POINTS, np.array([7, 4]), np.array([4, 5, 7]))
    np.testing.assert_array_equal(matched, [[2, 3], [np.nan, np.nan], [0, 1]])


def test_a_new_filter_starts_at_the_mean_of_its_neighbors() -> None:
    data = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    filled = fill_missing_points(np.vstack([POINTS, [np.nan, np.nan]]), data)
    np.testing.assert_allclose(filled, [[0, 1], [2, 3], [1, 2]])


def test_a_warm_start_needs_a_quarter_of_the_filters_and_at_least_five() -> None:
    previous = np.full((24, 2), np.nan)
    previous[:5] = 0
    assert not has_enough_finite_points(previous)
    previous[5] = 0
    assert has_enough_finite_points(previous)
    assert not has_enough_finite_points(previous[:4])
