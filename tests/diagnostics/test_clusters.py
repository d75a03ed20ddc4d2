"""Clustered filters differ from random ones, whatever their number and length."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import silhouette_score

from revacnn_lightning.diagnostics.clusters import (
    _silhouette_of,
    hopkins,
    measure_clusters,
    relative_effective_rank,
)
from revacnn_lightning.diagnostics.degenerate import normalize_rows

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(("filters", "length"), [(16, 9), (32, 27), (64, 64)])
def test_clusters_differ_from_random_filters(filters: int, length: int):
    random = measure_clusters(RANDOM.standard_normal((filters, length)))
    assert abs(random.silhouette - random.random_silhouette) < 0.1
    assert abs(random.effective_rank / random.random_effective_rank - 1) < 0.1
    centers = RANDOM.standard_normal((3, length))
    noise = 0.1 * RANDOM.standard_normal((filters, length))
    clustered = measure_clusters(centers[np.arange(filters) % 3] + noise)
    assert clustered.silhouette > 0.7
    assert clustered.effective_rank < 0.7 * clustered.random_effective_rank
    assert clustered.hopkins > random.hopkins


def test_the_silhouette_is_that_of_scikit_learn():
    units = normalize_rows(RANDOM.standard_normal((12, 4)))
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3])
    distances = np.linalg.norm(units[:, None] - units[None], axis=2)
    np.testing.assert_allclose(_silhouette_of(distances, labels), silhouette_score(units, labels))


def test_the_effective_rank_counts_directions():
    np.testing.assert_allclose(relative_effective_rank(np.eye(6)), 1)
    np.testing.assert_allclose(relative_effective_rank(np.tile(np.eye(2), (3, 1))), 1)
    np.testing.assert_allclose(relative_effective_rank(np.tile([[1.0, 0, 0]], (6, 1))), 1 / 3)


def test_equal_filters_are_clustered_and_few_ones_are_not_judged():
    equal = measure_clusters(np.ones((9, 5)))
    assert (equal.silhouette, equal.hopkins) == (1.0, 1.0)
    few = measure_clusters(RANDOM.standard_normal((7, 5)))
    assert all(math.isnan(value) for value in vars(few).values())
    zeros = np.zeros((20, 5))
    zeros[0] = np.nan
    assert math.isnan(measure_clusters(zeros).silhouette)


def test_hopkins_is_the_same_each_time():
    units = normalize_rows(RANDOM.standard_normal((16, 6)))
    assert hopkins(units) == hopkins(units)
