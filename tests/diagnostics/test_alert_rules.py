"""Rules of alerts: they report what goes wrong once, and nothing in healthy trainings."""

from __future__ import annotations

import math

import numpy as np
import pytest

from revacnn_lightning.diagnostics.alert_rules import (
    DivergingLossDetector,
    NonfiniteLossDetector,
    StalledMetricDetector,
    find_dead_layers,
    metric_direction,
)


def falling(batches: int = 2000, noise: float = 0.3, seed: int = 0) -> np.ndarray:
    """A healthy loss that falls from 2.3 to almost 0."""
    random = np.random.default_rng(seed)
    level = 2.3 * np.exp(-np.arange(batches) / 300) + 0.005
    return level * np.exp(noise * random.standard_normal(batches))


def test_a_loss_that_is_not_finite_is_reported_once():
    rule = NonfiniteLossDetector()
    losses = [1.0, math.nan, math.nan, 1.0, math.inf, *[1.0] * 30, math.inf]
    assert [i for i, loss in enumerate(losses) if rule.detect(loss)] == [1, len(losses) - 1]


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_noisy_falling_loss_does_not_diverge(noise: float, seed: int):
    rule = DivergingLossDetector()
    assert not any(rule.detect(loss) for loss in falling(noise=noise, seed=seed))


@pytest.mark.parametrize(
    "healthy",
    [
        np.full(500, 0.7),
        np.random.default_rng(0).standard_normal(2000),  # such as that of a Wasserstein GAN
        np.concatenate([falling(), [50.0] * 5, falling()[-500:]]),  # outliers
        -np.linspace(0, 5, 500),  # a log-likelihood
        2.3 - 0.2 * np.sin(np.arange(1000) / 50),  # a cyclic schedule
    ],
)
def test_other_healthy_losses_do_not_diverge(healthy: np.ndarray):
    rule = DivergingLossDetector()
    assert not any(rule.detect(loss) for loss in healthy)


def test_a_loss_that_explodes_diverges_once():
    rule = DivergingLossDetector()
    losses = np.concatenate([falling(), np.geomspace(0.01, 100, 200), np.full(100, 100.0)])
    found = [i for i, loss in enumerate(losses) if rule.detect(loss)]
    assert len(found) == 1
    assert 2050 < found[0] < 2200


def test_a_metric_that_no_longer_improves_stalls_once():
    rule = StalledMetricDetector(-1)
    values = [*np.linspace(2, 1, 20), *(1 + 0.01 * np.arange(1, 35))]
    assert [i for i, value in enumerate(values) if rule.detect(value)] == [39]
    rule = StalledMetricDetector(1)
    assert not any(rule.detect(value) for value in np.linspace(0.1, 0.99, 50))


def test_a_metric_that_improves_rarely_has_not_stalled():
    """The digits example improved after 17 validations, and was reported before."""
    rule = StalledMetricDetector(-1)
    values = [*np.linspace(0.17, 0.0302, 7), *(0.05 + 0.001 * np.arange(17)), 0.0294]
    assert not any(rule.detect(value) for value in values)


def test_a_value_that_is_logged_again_is_no_new_validation():
    rule = StalledMetricDetector(-1)
    assert not any(rule.detect(value) for value in [1.0] + [0.5] * 100)


@pytest.mark.parametrize(
    ("name", "sign"),
    [
        ("val_loss", -1), ("val/loss_epoch", -1), ("valid.mse", -1), ("val_acc", 1),
        ("validation/MulticlassAccuracy", 1), ("train_loss", 0), ("interval_loss", 0),
        ("val_learning_rate", 0),
    ],
)  # fmt: skip
def test_only_validation_metrics_of_a_known_direction_count(name: str, sign: int):
    assert metric_direction(name) == sign


def test_a_layer_is_dead_if_all_of_its_filters_are():
    dead = np.array([True, False, True, True, True])
    assert find_dead_layers(dead, np.array([0, 2, 4, 4, 5])) == [1, 3]
    assert find_dead_layers(np.zeros(0, bool), np.array([0])) == []
