"""The mean difference of paired losses, and its interval."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_rel

from revacnn_lightning.runtime.trial.paired_change import paired_change


def test_without_autocorrelation_the_interval_is_that_of_the_paired_t_test() -> None:
    before = [1.0, 2.0, 1.5, 1.2, 0.7, 0.9]
    after = [1.1, 1.8, 1.7, 1.1, 0.9, 0.8]  # differences alternate: their autocorrelation is < 0
    found = paired_change(before, after)
    expected = ttest_rel(after, before).confidence_interval(0.95)
    assert found.effective == 6
    assert found.mean == pytest.approx(np.mean(np.subtract(after, before)))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_differences_that_drift_count_as_fewer_batches() -> None:
    drift = np.linspace(0, 1, 20)
    found = paired_change(np.zeros(20), drift)
    centered = drift - drift.mean()
    r = (centered[1:] * centered[:-1]).sum() / (centered**2).sum()
    assert found.effective == pytest.approx(max(2, 20 * (1 - r) / (1 + r)))
    shuffled = paired_change(np.zeros(20), np.random.default_rng(0).permutation(drift))
    assert found.high - found.low > 2 * (shuffled.high - shuffled.low)


def test_correlated_differences_are_covered_nearly_as_often_as_the_interval_says() -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(300):
        noise, value = [], 0.0
        for _ in range(60):
            value = 0.6 * value + rng.normal()
            noise.append(value)
        found = paired_change(np.zeros(60), noise)
        covered += found.low <= 0 <= found.high
    assert covered / 300 > 0.85  # the interval of independent differences: 0.68


def test_equal_losses_differ_by_nothing() -> None:
    found = paired_change([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (found.mean, found.low, found.high) == (0, 0, 0)


def test_a_loss_that_is_no_number_has_no_mean_difference() -> None:
    found = paired_change([1.0, 2.0], [1.0, math.inf])
    assert all(math.isnan(value) for value in (found.mean, found.low, found.high))
