"""Tasks other than classification, and networks in unusual states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models.resnet import BasicBlock, ResNet

from benchmarks.left_alone.cases.small import Classifier, batches, samples
from benchmarks.left_alone.registry import register_case
from benchmarks.left_alone.training import Training


class VariationalAutoencoder(Classifier):
    """A variational autoencoder."""

    def __init__(self) -> None:
        super().__init__(nn.Identity())
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4)
        )
        self.decoder = nn.Sequential(
            nn.Linear(2, 4 * 16), nn.Unflatten(1, (4, 4, 4)), nn.ReLU(),
            nn.ConvTranspose2d(4, 4, 2, stride=2), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(self.encoder(images)[:, :2])

    def loss(self, batch: Any) -> Tensor:
        mean, log_variance = self.encoder(batch[0]).chunk(2, 1)
        posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
        prior = torch.distributions.Normal(0.0, 1.0)
        divergence = torch.distributions.kl_divergence(posterior, prior).mean()
        return F.mse_loss(self.decoder(posterior.rsample()), batch[0]) + 0.01 * divergence


@register_case()
def train_autoencoder(training: Training) -> None:
    training.fit(VariationalAutoencoder(), batches())


class SimClr(Classifier):
    """SimCLR: two views in one batch."""

    def loss(self, batch: Any) -> Tensor:
        views = torch.cat([batch[0], batch[0] + 0.1 * torch.randn_like(batch[0])])
        features = F.normalize(self(views), dim=1)
        similarity = features @ features.T / 0.5
        similarity = similarity.masked_fill(torch.eye(len(views), device=self.device) > 0, -9e15)
        half = len(views) // 2
        targets = torch.arange(len(views), device=self.device).roll(half)
        return F.cross_entropy(similarity, targets)


@register_case()
def train_contrastive(training: Training) -> None:
    training.fit(SimClr(), batches())


class SiameseNetwork(Classifier):
    """Calls its network twice per step, and its forward takes two images."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.net(a) - self.net(b)

    def loss(self, batch: Any) -> Tensor:
        return F.cross_entropy(self(batch[0], batch[0].flip(-1)), batch[1])


@register_case(output=lambda m, b: m(b[0], b[0].flip(2)))
def train_siamese(training: Training) -> None:
    training.fit(SiameseNetwork(), batches())


@register_case()
def train_channels_last(training: Training) -> None:
    module = Classifier().to(memory_format=torch.channels_last)
    images, labels = samples(channels=1)
    data = TensorDataset(images.to(memory_format=torch.channels_last), labels)
    training.fit(module, DataLoader(data, batch_size=8))


@register_case()
def train_torchvision_resnet(training: Training) -> None:
    net = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=3)
    training.fit(Classifier(net), batches(9, channels=3, size=32))


@register_case()
def train_frozen_batch_norm(training: Training) -> None:
    class Frozen(Classifier):
        def on_train_epoch_start(self) -> None:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval().requires_grad_(False)

    training.fit(Frozen(), batches())
