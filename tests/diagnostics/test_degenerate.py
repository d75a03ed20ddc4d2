from __future__ import annotations

import numpy as np
import pytest

from revacnn_lightning.diagnostics.degenerate import (
    ComparisonExclusion,
    find_zero_nonfinite_identical,
    normalize_rows,
)


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(12, 8))


def test_ordinary_filters_are_not_degenerate(features: np.ndarray) -> None:
    kinds, original = find_zero_nonfinite_identical(features)

    assert not kinds.any()
    assert (original == -1).all()


def test_every_kind_is_found(features: np.ndarray) -> None:
    features[2] = 0
    features[3, 1] = np.nan
    features[4, 0] = -np.inf
    features[7] = 3 * features[5]

    kinds, original = find_zero_nonfinite_identical(features)

    expected = np.zeros(12)
    expected[[2, 3, 4, 7]] = [
        ComparisonExclusion.ZERO,
        ComparisonExclusion.NONFINITE,
        ComparisonExclusion.NONFINITE,
        ComparisonExclusion.IDENTICAL,
    ]
    np.testing.assert_array_equal(kinds, expected)
    assert original[7] == 5
    assert (np.delete(original, 7) == -1).all()


def test_opposite_filters_are_not_identical(features: np.ndarray) -> None:
    features[7] = -features[5]

    assert not find_zero_nonfinite_identical(features)[0].any()


def test_scaled_copy_is_identical_in_half_precision(features: np.ndarray) -> None:
    features[7] = 0.1 * features[5]

    kinds, _ = find_zero_nonfinite_identical(features.astype(np.float16))

    assert kinds[7] == ComparisonExclusion.IDENTICAL


def test_identical_filters_refer_to_the_first(features: np.ndarray) -> None:
    features[3:] = features[2]

    kinds, original = find_zero_nonfinite_identical(features)

    assert (kinds[:3] == ComparisonExclusion.NONE).all()
    assert (kinds[3:] == ComparisonExclusion.IDENTICAL).all()
    assert (original[3:] == 2).all()


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
def test_result_does_not_depend_on_scale(features: np.ndarray, scale: float) -> None:
    np.testing.assert_allclose(normalize_rows(scale * features), normalize_rows(features))
    assert not find_zero_nonfinite_identical(scale * features)[0].any()


def test_no_filters() -> None:
    kinds, original = find_zero_nonfinite_identical(np.zeros((0, 4)))

    assert len(kinds) == len(original) == 0
