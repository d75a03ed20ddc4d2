"""Features of the filters of a real convolution during training: input of the layout benchmark."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

__all__ = ["VIEWS", "feature_snapshots"]

VIEWS = ("coefficients", "gradients", "activations", "activation gradients")
DIMENSIONS = 64  # of the fixed random projection, as the training sends features
BATCHES_PER_SNAPSHOT = 10
BATCH = 32
SAMPLES = 16  # images whose activation maps are part of a snapshot
MOMENTUM = 0.95  # gradients are averaged over about 20 batches
WARM_UP = 300  # batches before the first snapshot: five epochs


def feature_snapshots(n_filters: int, count: int, seed: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """Yield ``count`` snapshots of the features of each view, (n_filters, 64), 10 batches apart.

    They belong to the second convolution of a small CNN that learns scikit-learn's handwritten
    digits.
    """
    torch.manual_seed(seed)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16  # (1797, 1, 8, 8)
    labels = torch.tensor(digits.target)
    conv = nn.Conv2d(16, n_filters, 3, stride=2, padding=1)
    stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU())
    head = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * n_filters, 10))
    model = nn.Sequential(stem, conv, head)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    mean_gradient = torch.zeros_like(conv.weight)
    for batch in range(WARM_UP + count * BATCHES_PER_SNAPSHOT):
        chosen = torch.randint(len(images), (BATCH,))
        optimizer.zero_grad()
        functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
        optimizer.step()
        assert conv.weight.grad is not None
        mean_gradient = MOMENTUM * mean_gradient + (1 - MOMENTUM) * conv.weight.grad
        if batch >= WARM_UP and batch % BATCHES_PER_SNAPSHOT == 0:
            maps = conv(stem(images[:SAMPLES]))  # (16, n_filters, 4, 4)
            maps.retain_grad()
            functional.cross_entropy(head(maps), labels[:SAMPLES]).backward()
            assert maps.grad is not None
            values = (
                conv.weight,
                mean_gradient,
                maps.relu().transpose(0, 1),
                maps.grad.transpose(0, 1),
            )
            yield {
                view: _project(of_view.detach().flatten(1).numpy())
                for view, of_view in zip(VIEWS, values, strict=True)
            }


def _project(rows: np.ndarray) -> np.ndarray:
    """Project ``rows`` (n, d) onto 64 fixed random directions. Return float16 in [-1, 1]."""
    directions = np.random.default_rng(7).normal(size=(rows.shape[1], DIMENSIONS))
    projected = rows @ directions / np.sqrt(DIMENSIONS)
    largest = np.abs(projected).max()
    return (projected / (largest if largest > 0 else 1.0)).astype(np.float16)
