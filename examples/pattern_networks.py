"""Networks for `05_published_patterns.py`: trained with random settings, then measured.

What is measured follows the claim of the 2016 work: the 2D embeddings of a badly trained network
show clusters of filters, its first layer has filters of a single color, and its filters are not
stable. Each claim becomes a number per layer.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from quiet_training import quiet_training
from study_images import Images
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from revacnn_lightning.diagnostics.clusters import measure_clusters
from revacnn_lightning.diagnostics.color import find_single_color_filters
from revacnn_lightning.diagnostics.near_duplicates import group_near_duplicates

BATCH_SIZE = 64
RATES = {"sgd": (3e-3, 0.6), "momentum": (3e-4, 0.1), "adam": (3e-5, 0.03)}


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained.

    Attributes:
        scale: of the initial weights, relative to the usual ones.
        decay: the weight decay.
    """

    architecture: str
    optimizer: str
    rate: float
    scale: float
    decay: float
    seed: int


def draw_settings(architecture: str, seed: int) -> TrainingSettings:
    """Return random settings; rates, scales and decays are uniform in their logarithm."""
    generator = np.random.default_rng(seed)
    optimizer = str(generator.choice(list(RATES)))
    rate, scale, decay = (
        float(math.exp(generator.uniform(math.log(low), math.log(high))))
        for low, high in (RATES[optimizer], (0.3, 3.0), (1e-6, 1e-2))
    )
    return TrainingSettings(architecture, optimizer, rate, scale, decay, seed)


def convnetjs_network(channels: int, side: int) -> nn.Sequential:
    """Return the network for CIFAR-10 of ConvNetJS, on which the 2016 work is built."""
    layers: list[nn.Module] = []
    for inputs, filters in ((channels, 16), (16, 20), (20, 20)):
        layers += [nn.Conv2d(inputs, filters, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(20 * (side // 8) ** 2, 10))


def batch_norm_network(channels: int, side: int) -> nn.Sequential:
    """Return a network of another kind: small kernels, batch norm, twice as many filters."""
    layers: list[nn.Module] = []
    for inputs in (channels, 32, 32):
        conv = nn.Conv2d(inputs, 32, 3, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * (side // 8) ** 2, 10))


ARCHITECTURES = {"original": convnetjs_network, "normalized": batch_norm_network}


class StudiedNetwork(pl.LightningModule):
    """A classifier that is trained as its settings say."""

    def __init__(self, settings: TrainingSettings, image_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.settings = settings
        self.layers = ARCHITECTURES[settings.architecture](image_shape[0], image_shape[1])
        with torch.no_grad():
            for conv in self.convolutions():
                conv.weight.mul_(settings.scale)

    def convolutions(self) -> list[nn.Conv2d]:
        return [layer for layer in self.layers if isinstance(layer, nn.Conv2d)]

    def forward(self, images: Tensor) -> Tensor:  # (B, channels, H, W) -> (B, 10)
        return self.layers(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, classes = batch
        return F.cross_entropy(self(images), classes)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        given, decay = self.settings, self.settings.decay
        if given.optimizer == "adam":
            return torch.optim.Adam(self.parameters(), lr=given.rate, weight_decay=decay)
        momentum = 0.9 if given.optimizer == "momentum" else 0.0
        return torch.optim.SGD(self.parameters(), given.rate, momentum=momentum, weight_decay=decay)


class _WeightsOfEpochs(pl.Callback):
    """Copies the weights of the convolutions before the training and after each epoch."""

    def __init__(self) -> None:
        self.weights: list[list[np.ndarray]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.weights.append(_weights(pl_module))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.weights.append(_weights(pl_module))


def _weights(network: pl.LightningModule) -> list[np.ndarray]:
    return [conv.weight.detach().numpy().copy() for conv in network.convolutions()]


def train_and_measure(settings: TrainingSettings, images: Images, epochs: int) -> dict[str, Any]:
    """Return the settings, the accuracy and the measures of each convolution of a new network."""
    pl.seed_everything(settings.seed, verbose=False)
    network, history = StudiedNetwork(settings, images.shape), _WeightsOfEpochs()
    with quiet_training():
        trainer = pl.Trainer(
            accelerator="cpu",
            callbacks=[history],
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            logger=False,
            max_epochs=epochs,
        )
        trainer.fit(network, _batches(images.train))
    accuracy, silent = _evaluate(network.eval(), images.test)
    layers = [
        measure_layer(*of_epochs, silent=share)
        for *of_epochs, share in zip(*_first_and_last(history.weights), silent, strict=True)
    ]
    return {**asdict(settings), "accuracy": accuracy, "layers": layers}


def _batches(dataset: TensorDataset) -> DataLoader:
    """Return a loader that reads whole batches, which is faster than sample by sample."""
    sampler = BatchSampler(RandomSampler(dataset), BATCH_SIZE, drop_last=True)
    return DataLoader(dataset, sampler=sampler, batch_size=None)


def _first_and_last(weights: list[list[np.ndarray]]) -> tuple[list[np.ndarray], ...]:
    """Return the weights before the training, before the last epoch, and after it."""
    return weights[0], weights[-2], weights[-1]


@torch.no_grad()
def _evaluate(network: StudiedNetwork, test: TensorDataset) -> tuple[float, list[float]]:
    """Return the accuracy, and the share of filters of each layer that no test image activates."""
    x, classes = test.tensors
    silent: list[float] = []
    for layer in network.layers:
        x = layer(x)
        if isinstance(layer, nn.ReLU):
            silent.append(float((x.amax((0, 2, 3)) <= 0).float().mean()))
    return float((x.argmax(1) == classes).float().mean()), silent


def measure_layer(
    first: np.ndarray, before: np.ndarray, last: np.ndarray, silent: float
) -> dict[str, float]:
    """Return the measures of a layer.

    Args:
        first: its weights before the training, (filters, inputs, height, width).
        before: those before the last epoch.
        last: those at the end.
        silent: the share of silent filters.
    """
    rows = last.reshape(len(last), -1)
    clusters = measure_clusters(rows)
    is_rgb = last.shape[1] == 3
    return {
        "silhouette": clusters.silhouette - clusters.random_silhouette,
        "hopkins": clusters.hopkins,
        "effective_rank": clusters.effective_rank / clusters.random_effective_rank,
        "near_duplicates": float((group_near_duplicates(rows) >= 0).mean()),
        "single_color": float(find_single_color_filters(last.transpose(0, 2, 3, 1)).mean())
        if is_rgb
        else math.nan,
        "silent": silent,
        "movement": _relative_change(first, last),
        "late_movement": _relative_change(before, last),
    }


def _relative_change(old: np.ndarray, new: np.ndarray) -> float:
    length = float(np.linalg.norm(old))
    return float(np.linalg.norm(new - old)) / length if length > 0 else math.nan
