"""Twins are found by what units compute, and not among units that share nothing."""

from __future__ import annotations

import numpy as np

from revacnn_lightning.diagnostics.twins import TWIN, find_twins, r_squared_from_others

RANDOM = np.random.default_rng(0)


def activations(n: int = 400, units: int = 6) -> np.ndarray:
    return np.maximum(RANDOM.standard_normal((n, units)), 0)


def test_a_multiple_of_another_unit_is_its_twin_and_the_stronger_one_comes_first():
    samples = activations()
    samples[:, 4] = 2 * samples[:, 1] + 0.01 * RANDOM.standard_normal(400)
    (twins,) = find_twins(samples)
    assert (twins.units, twins.min_r_squared > 0.99) == ([4, 1], True)
    np.testing.assert_allclose(twins.scales, [1, 0.5], rtol=0.02)


def test_any_two_of_a_group_are_twins():
    """A chain of similar units is no group: its ends differ."""
    axes, angles = activations(4000, 2), np.arange(6) * 0.15
    samples = np.outer(axes[:, 0], np.cos(angles)) + np.outer(axes[:, 1], np.sin(angles))
    groups = find_twins(samples)
    assert groups
    for group in groups:
        pairs = np.corrcoef(samples[:, group.units].T)
        np.testing.assert_allclose(pairs.min() ** 2, group.min_r_squared)
        assert group.min_r_squared >= TWIN
    assert max(len(group.units) for group in groups) < 6


def test_a_unit_that_falls_while_another_rises_is_no_twin():
    samples = activations(units=2)
    samples[:, 1] = 5 - samples[:, 0]
    assert find_twins(samples) == []


def test_constant_and_nonfinite_units_have_no_twin():
    samples = activations(units=3)
    samples[:, 0], samples[5, 1] = 7.0, np.nan
    assert find_twins(samples) == []
    assert np.isnan(r_squared_from_others(samples)).all()


def test_a_sum_of_two_units_has_no_twin_but_is_explained_by_them():
    samples = activations()
    samples[:, 5] = samples[:, 0] + samples[:, 1]
    explained = r_squared_from_others(samples)
    assert (explained[[0, 1, 5]] > 0.99).all()
    assert (explained[2:5] < 0.2).all()
    assert find_twins(samples) == []


def test_r2_is_that_of_a_regression_on_samples_that_it_was_not_fitted_to():
    samples = activations(600, 4) @ RANDOM.standard_normal((4, 5))
    samples += 0.3 * RANDOM.standard_normal(samples.shape)
    fitted, tested = samples[::2], samples[1::2]
    others = [1, 2, 3, 4]
    design = np.column_stack([fitted[:, others], np.ones(len(fitted))])
    weights = np.linalg.lstsq(design, fitted[:, 0], rcond=None)[0]
    error = tested[:, 0] - np.column_stack([tested[:, others], np.ones(len(tested))]) @ weights
    expected = 1 - (error**2).mean() / tested[:, 0].var()
    np.testing.assert_allclose(r_squared_from_others(samples)[0], expected, atol=5e-3)


def test_too_few_samples_explain_nothing():
    assert np.isnan(r_squared_from_others(activations(30, 6))).all()
