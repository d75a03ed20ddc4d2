"""What follows from the means of each class, against sums over single images."""

from __future__ import annotations

import numpy as np
import pytest

from revacnn_lightning.protocol.class_lens import ClassLens
from revacnn_lightning.protocol.encoding import decode, encode

N, K = 60, 3


def lens_of(values: np.ndarray, gradients: np.ndarray, labels: np.ndarray) -> ClassLens:
    """Return the message about images (n, C) with these labels (n,)."""
    means, pulls = (
        np.stack([each[labels == k].mean(0) for k in range(K)], axis=1)
        for each in (values, gradients)
    )
    counts = np.bincount(labels, minlength=K).astype(np.float32)
    scale = np.sqrt((gradients**2).mean(0))
    return ClassLens(
        "run", 0, 0, "conv", list(range(K)), [""] * K, counts, means, pulls, values.mean(0),
        values.std(0), scale,
    )  # fmt: skip


@pytest.fixture
def images() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, K, N)
    values, gradients = generator.normal(size=(2, N, 4))
    values[:, 0] = labels  # explained by the class alone
    values[:, 3] = 2.0  # the same on all images
    gradients[:, 0] = -1  # all classes pull the filter up
    gradients[:, 1] = np.where(labels == 0, 1 / (labels == 0).sum(), 0)
    gradients[:, 1] -= np.where(labels == 1, 1 / (labels == 1).sum(), 0)  # they cancel
    return values, gradients, labels


def test_selectivity_is_the_unbiased_share_of_the_variance_between_classes(images) -> None:
    values, gradients, labels = images
    found = lens_of(values, gradients, labels).selectivity()
    for filter in range(4):
        x = values[:, filter]
        within = sum(((x[labels == k] - x[labels == k].mean()) ** 2).sum() for k in range(K))
        total = ((x - x.mean()) ** 2).sum()
        expected = 1 - (within / (N - K)) / (total / (N - 1)) if total else 0.0
        assert found[filter] == pytest.approx(np.clip(expected, 0, 1), abs=1e-5)
    assert found[0] == pytest.approx(1)
    assert found[3] == 0


def test_conflict_is_1_where_the_gradients_of_the_classes_cancel(images) -> None:
    found = lens_of(*images).conflict()
    assert found[0] == pytest.approx(0, abs=1e-6)
    assert found[1] == pytest.approx(1, abs=1e-6)
    assert 0 <= found[2] <= 1


def test_effects_are_in_standard_deviations_and_pulls_against_the_gradient(images) -> None:
    values, gradients, labels = images
    lens = lens_of(values, gradients, labels)
    own = labels == 1
    expected = (values[own, 2].mean() - values[:, 2].mean()) / values[:, 2].std()
    assert lens.effects()[2, 1] == pytest.approx(expected, rel=1e-4)
    assert lens.effects()[3].tolist() == [0, 0, 0]
    assert lens.pulls()[0].tolist() == [1, 1, 1]
    assert lens.strongest()[0] == 2


def test_the_message_crosses_the_wire(images) -> None:
    lens = lens_of(*images)
    received = decode(encode(lens))
    assert isinstance(received, ClassLens)
    np.testing.assert_allclose(received.effects(), lens.effects(), rtol=1e-5, atol=1e-6)
