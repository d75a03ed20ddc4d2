"""Features of the filters of a real conv while it trains: what the layouts are measured with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

__all__ = ["VIEWS", "snapshots"]

VIEWS = ("coefficients", "gradients", "activations", "activation gradients")
DIMENSIONS = 64  # of the fixed random projection, as the training sends them
BATCHES_APART = 10
BATCH = 32
PROBE = 16  # images whose activation maps are looked at
SMOOTHING = 0.95  # gradients are averaged over about 20 batches
WARM_UP = 300  # batches before the first snapshot: five epochs


def snapshots(n_filters: int, count: int, seed: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """Features (n_filters, 64) of each view, ``count`` times, 10 batches apart.

    A CNN of two convs learns scikit-learn's handwritten digits; the second is looked at.
    """
    torch.manual_seed(seed)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16  # (1797, 1, 8, 8)
    labels = torch.tensor(digits.target)
    conv = nn.Conv2d(16, n_filters, 3, stride=2, padding=1)
    before = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU())
    after = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * n_filters, 10))
    model = nn.Sequential(before, conv, after)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    smoothed = torch.zeros_like(conv.weight)
    for batch in range(WARM_UP + count * BATCHES_APART):
        chosen = torch.randint(len(images), (BATCH,))
        optimizer.zero_grad()
        functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
        optimizer.step()
        assert conv.weight.grad is not None
        smoothed = SMOOTHING * smoothed + (1 - SMOOTHING) * conv.weight.grad
        if batch >= WARM_UP and batch % BATCHES_APART == 0:
            maps = conv(before(images[:PROBE]))
            maps.retain_grad()
            functional.cross_entropy(after(maps), labels[:PROBE]).backward()
            of_filters = [conv.weight, smoothed, maps.relu().transpose(0, 1)]
            assert maps.grad is not None
            of_filters.append(maps.grad.transpose(0, 1))
            yield {
                view: _project(values.detach().flatten(1).numpy())
                for view, values in zip(VIEWS, of_filters, strict=True)
            }


def _project(rows: np.ndarray) -> np.ndarray:
    """``rows`` (n, d) in 64 fixed random directions, as float16, scaled to what that can hold."""
    directions = np.random.default_rng(7).normal(size=(rows.shape[1], DIMENSIONS))
    projected = rows @ directions / np.sqrt(DIMENSIONS)
    largest = np.abs(projected).max()
    return (projected / (largest if largest > 0 else 1.0)).astype(np.float16)
