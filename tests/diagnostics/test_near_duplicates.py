from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revacnn_lightning.diagnostics.near_duplicates import MIN_SIMILARITY, group_near_duplicates


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def noisy_copies(row: np.ndarray, count: int, seed: int = 1) -> np.ndarray:
    """Return copies of a filter at other scales with some noise, (count, d)."""
    rng = np.random.default_rng(seed)
    noise = 0.05 * np.linalg.norm(row) / np.sqrt(len(row)) * rng.normal(size=(count, len(row)))
    return (row + noise) * rng.uniform(0.2, 5, (count, 1))


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(24, 16))


def test_random_filters_are_in_no_group(features: np.ndarray) -> None:
    assert (group_near_duplicates(features) == -1).all()


def test_groups_are_numbered_by_decreasing_size(features: np.ndarray) -> None:
    features[[4, 9]] = noisy_copies(features[2], 2)
    features[[1, 11, 20]] = noisy_copies(features[17], 3)

    groups = group_near_duplicates(features)

    assert set(np.flatnonzero(groups == 0)) == {1, 11, 17, 20}
    assert set(np.flatnonzero(groups == 1)) == {2, 4, 9}
    assert (groups == -1).sum() == 24 - 7


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10**6), min_similarity=st.sampled_from([0.5, 0.8, 0.95]))
def test_groups_are_complete_and_maximal(seed: int, min_similarity: float) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(4, 3))[rng.integers(0, 4, 20)] + 0.3 * rng.normal(size=(20, 3))

    groups = group_near_duplicates(features, min_similarity)

    members = [np.flatnonzero(groups == g) for g in range(groups.max() + 1)]
    members += [np.array([i]) for i in np.flatnonzero(groups == -1)]
    worst = [
        [min(cosine(features[i], features[j]) for i in a for j in b) for b in members]
        for a in members
    ]
    for k, row in enumerate(worst):
        assert row[k] >= min_similarity - 1e-6
        assert (
            max((s for other, s in enumerate(row) if other != k), default=0) < min_similarity + 1e-6
        )


def test_opposite_filters_are_not_near_duplicates(features: np.ndarray) -> None:
    features[3] = -features[2]

    assert (group_near_duplicates(features) == -1).all()


def test_dead_and_nonfinite_filters_are_in_no_group(features: np.ndarray) -> None:
    features[5:8] = 0
    features[8:10] = np.nan
    features[10:12] = np.inf
    features[13] = features[12]

    groups = group_near_duplicates(features)

    assert set(np.flatnonzero(groups >= 0)) == {12, 13}


@pytest.mark.parametrize("value", [0.0, 1.0, np.nan, np.inf])
def test_all_filters_equal(value: float) -> None:
    groups = group_near_duplicates(np.full((64, 16), value))

    assert (groups == (0 if value == 1 else -1)).all()


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5])
def test_few_filters(n: int) -> None:
    assert len(group_near_duplicates(np.random.default_rng(n).normal(size=(n, 9)))) == n


@pytest.mark.parametrize("d", [0, 1, 2])
def test_filters_with_few_coefficients_are_not_grouped(d: int) -> None:
    assert (group_near_duplicates(np.ones((8, d))) == -1).all()


def test_half_precision_gives_the_same_groups() -> None:
    features = np.random.default_rng(0).normal(size=(64, 64))
    features[40:50] = noisy_copies(features[3], 10)

    full, half = group_near_duplicates(features), group_near_duplicates(features.astype(np.float16))

    np.testing.assert_array_equal(full, half)
    assert cosine(features[40], features[3]) > MIN_SIMILARITY
