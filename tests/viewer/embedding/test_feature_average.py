from __future__ import annotations

import numpy as np
import pytest

from revacnn_lightning.diagnostics.degenerate import DegenerateKind, find_degenerate, unit_rows
from viewer.embedding.feature_average import WINDOW, FeatureAverage

IDS = np.arange(8)


def features(seed: int, n: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 16)).astype(np.float16)


def after(rows: list[np.ndarray]) -> np.ndarray:
    average = FeatureAverage()
    for each in rows:
        last = average.add(IDS, each)
    return last


def test_at_first_it_is_the_mean_of_all_directions() -> None:
    rows = [features(seed) for seed in range(5)]

    expected = np.mean([unit_rows(each) for each in rows], axis=0)

    assert np.allclose(after(rows), expected, atol=1e-6)


def test_a_batch_of_large_gradients_says_no_more_than_another() -> None:
    rows = [features(0), features(1)]

    assert np.allclose(after(rows), after([rows[0], 100 * rows[1]]), atol=1e-3)


def test_what_was_long_ago_is_forgotten() -> None:
    common = [features(seed) for seed in range(150)]

    assert np.allclose(after([features(200), *common]), after([features(201), *common]), atol=1e-3)


def test_what_hardly_lasts_moves_less_than_what_it_is_made_of() -> None:
    rows = [unit_rows(features(0)) + unit_rows(features(seed)) for seed in range(1, 40)]
    before, now = after(rows[:-1]), after(rows)

    def way(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.linalg.norm(unit_rows(a) - unit_rows(b), axis=1).mean())

    assert way(before, now) < 0.15 * way(rows[-2], rows[-1])


def test_rows_follow_filters_through_edits() -> None:
    average, alone = FeatureAverage(), FeatureAverage()
    first, second = features(0), features(1)
    average.add(IDS, first)
    kept = np.array([6, 1, 9])  # 9 is new

    mean = average.add(kept, second[:3])

    alone.add(IDS[[6, 1]], first[[6, 1]])
    assert np.allclose(mean[:2], alone.add(IDS[[6, 1]], second[:2]))
    assert np.allclose(mean[2], unit_rows(second[2:3])[0])


def test_other_dimensions_begin_anew() -> None:
    average = FeatureAverage()
    average.add(IDS, features(0))
    wider = np.random.default_rng(1).normal(size=(8, 20))

    assert np.allclose(average.add(IDS, wider), unit_rows(wider))


def test_a_filter_that_is_silent_in_one_batch_is_not_dead() -> None:
    silent = features(1)
    silent[2] = 0

    odd, _ = find_degenerate(after([features(0), silent]))

    assert odd[2] == DegenerateKind.NONE


@pytest.mark.parametrize("heard", [0, 1, WINDOW])
def test_a_filter_that_stays_silent_is_dead_at_last(heard: int) -> None:
    average, silent = FeatureAverage(), features(1)
    silent[2] = 0
    for seed in range(heard):
        average.add(IDS, features(seed))
    for _ in range(WINDOW):
        odd, _ = find_degenerate(average.add(IDS, silent))

    assert odd[2] == DegenerateKind.DEAD


def test_what_is_not_finite_is_told_and_not_remembered() -> None:
    average, broken = FeatureAverage(), features(1)
    broken[3, 0], broken[4, 1] = np.nan, np.inf
    average.add(IDS, features(0))

    odd, _ = find_degenerate(average.add(IDS, broken))
    mended, _ = find_degenerate(average.add(IDS, features(2)))

    assert list(np.flatnonzero(odd)) == [3, 4]
    assert not mended.any()


def test_no_filters_at_all() -> None:
    assert FeatureAverage().add(np.zeros(0, np.int64), np.zeros((0, 4))).shape == (0, 4)
