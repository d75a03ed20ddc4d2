"""The network and the data of most cases."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from benchmarks.left_alone.registry import add_case
from benchmarks.left_alone.training import Training

__all__ = [
    "Classifier",
    "add_networks",
    "batches",
    "conv_net",
    "dataset",
    "encoder",
    "loader_of",
    "samples",
]

BATCH = 8


def conv_net(channels: int = 1, classes: int = 3) -> nn.Sequential:
    """Return two convolutions and a linear layer, for images of 8×8 pixels."""
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(20, classes),
    )


def encoder() -> nn.Sequential:
    """Return two convolutions that make 6 features of each image."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


class Classifier(pl.LightningModule):
    """Trains a network with Adam on batches of (images, labels).

    Args:
        net: The network; None: `conv_net`.
        optimizer: Makes the optimizer of the parameters.
    """

    def __init__(
        self,
        net: nn.Module | None = None,
        optimizer: Callable[[Any], torch.optim.Optimizer] | None = None,
    ) -> None:
        super().__init__()
        self.net = conv_net() if net is None else net
        self.make_optimizer = optimizer or functools.partial(torch.optim.Adam, lr=0.01)

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_loss", self.loss(batch))

    def loss(self, batch: Any) -> Tensor:
        """Return the cross-entropy loss of a batch."""
        images, labels = batch
        return F.cross_entropy(self(images), labels)

    def configure_optimizers(self) -> Any:
        return self.make_optimizer(self.parameters())


def samples(count: int = 12 * BATCH, channels: int = 1, size: int = 8) -> tuple[Tensor, Tensor]:
    """Return images and labels, always the same."""
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(count, channels, size, size, generator=generator)
    return images, torch.randint(3, (count,), generator=generator)


def dataset(count: int = 12, channels: int = 1, size: int = 8) -> Dataset:
    """Return the samples of ``count`` batches."""
    return TensorDataset(*samples(count * BATCH, channels, size))


def batches(count: int = 12, channels: int = 1, size: int = 8, **options: Any) -> DataLoader:
    """Return a loader of ``count`` batches."""
    return DataLoader(dataset(count, channels, size), batch_size=BATCH, **options)


def loader_of(items: list[Any]) -> DataLoader:
    """Return a loader whose batches are these items."""
    return DataLoader(items, batch_size=None, collate_fn=lambda item: item)  # type: ignore[arg-type]


def add_networks(
    module: str, networks: Mapping[str, tuple[Callable[[], nn.Module], dict[str, Any]]]
) -> None:
    """Add a case of ``module`` for each network, that trains it as a classifier.

    Args:
        module: The name of the module that has the networks.
        networks: Name -> what makes the network, and the options of its case.
    """

    def add(name: str, make: Callable[[], nn.Module], options: dict[str, Any]) -> None:
        def train(training: Training) -> None:
            training.fit(Classifier(make()), batches())

        train.__module__ = module
        add_case(name, train, **options)

    for name, (make, options) in networks.items():
        add(name, make, options)
