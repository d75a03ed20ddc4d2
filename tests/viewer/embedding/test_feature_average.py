from __future__ import annotations

import numpy as np
import pytest

from revacnn_lightning.diagnostics.degenerate import (
    ComparisonExclusion,
    find_zero_nonfinite_identical,
    normalize_rows,
)
from viewer.embedding.feature_average import WINDOW, FilterFeatureMovingAverage

IDS = np.arange(8)


def features(seed: int, n: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 16)).astype(np.float16)


def average_of(rows: list[np.ndarray]) -> np.ndarray:
    average = FilterFeatureMovingAverage()
    for features_of_batch in rows:
        result = average.add_and_average(IDS, features_of_batch)
    return result


def test_first_averages_are_means_of_directions() -> None:
    rows = [features(seed) for seed in range(5)]

    expected = np.mean([normalize_rows(each) for each in rows], axis=0)

    assert np.allclose(average_of(rows), expected, atol=1e-6)


def test_large_gradients_have_no_larger_weight() -> None:
    rows = [features(0), features(1)]

    assert np.allclose(average_of(rows), average_of([rows[0], 100 * rows[1]]), atol=1e-3)


def test_old_features_are_forgotten() -> None:
    common = [features(seed) for seed in range(150)]

    assert np.allclose(
        average_of([features(200), *common]), average_of([features(201), *common]), atol=1e-3
    )


def test_average_changes_less_than_features() -> None:
    rows = [normalize_rows(features(0)) + normalize_rows(features(seed)) for seed in range(1, 40)]
    before, now = average_of(rows[:-1]), average_of(rows)

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.linalg.norm(normalize_rows(a) - normalize_rows(b), axis=1).mean())

    assert distance(before, now) < 0.15 * distance(rows[-2], rows[-1])


def test_rows_are_matched_by_filter_id() -> None:
    average, reference = FilterFeatureMovingAverage(), FilterFeatureMovingAverage()
    first, second = features(0), features(1)
    average.add_and_average(IDS, first)
    kept = np.array([6, 1, 9])  # 9 is new

    mean = average.add_and_average(kept, second[:3])

    reference.add_and_average(IDS[[6, 1]], first[[6, 1]])
    assert np.allclose(mean[:2], reference.add_and_average(IDS[[6, 1]], second[:2]))
    assert np.allclose(mean[2], normalize_rows(second[2:3])[0])


def test_other_dimensions_restart_the_average() -> None:
    average = FilterFeatureMovingAverage()
    average.add_and_average(IDS, features(0))
    wider = np.random.default_rng(1).normal(size=(8, 20))

    assert np.allclose(average.add_and_average(IDS, wider), normalize_rows(wider))


def test_filter_with_one_zero_row_is_not_dead() -> None:
    zero = features(1)
    zero[2] = 0

    kinds, _ = find_zero_nonfinite_identical(average_of([features(0), zero]))

    assert kinds[2] == ComparisonExclusion.NONE


@pytest.mark.parametrize("n_before", [0, 1, WINDOW])
def test_filter_with_zeros_for_the_whole_window_is_dead(n_before: int) -> None:
    average, zero = FilterFeatureMovingAverage(), features(1)
    zero[2] = 0
    for seed in range(n_before):
        average.add_and_average(IDS, features(seed))
    for _ in range(WINDOW):
        kinds, _ = find_zero_nonfinite_identical(average.add_and_average(IDS, zero))

    assert kinds[2] == ComparisonExclusion.ZERO


def test_nonfinite_rows_are_passed_through_and_not_averaged() -> None:
    average, broken = FilterFeatureMovingAverage(), features(1)
    broken[3, 0], broken[4, 1] = np.nan, np.inf
    average.add_and_average(IDS, features(0))

    kinds, _ = find_zero_nonfinite_identical(average.add_and_average(IDS, broken))
    later, _ = find_zero_nonfinite_identical(average.add_and_average(IDS, features(2)))

    assert list(np.flatnonzero(kinds)) == [3, 4]
    assert not later.any()


def test_no_filters() -> None:
    assert FilterFeatureMovingAverage().add_and_average(
        np.zeros(0, np.int64), np.zeros((0, 4))
    ).shape == (0, 4)
