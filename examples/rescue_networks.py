"""Networks for `06_steering_pays.py`: they collapse in their first epoch, and are treated then.

A network without batch norm is trained at a rate that is too large. Most of its filters fall
silent, and its accuracy is that of chance. It is then treated in one of several ways, with what is
left of a fixed budget of epochs.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from quiet_training import quiet_training
from study_images import Images
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from revacnn_lightning import Reinitialize, ReVACNN

BATCH_SIZE = 64
LOWER = 0.1  # a rate is lowered to this share of it
PROBE_IMAGES = 1280  # training images that no silent filter responds to: 20 batches
ARMS = ("leave", "lower the rate", "restart all together", "restart front to back", "start over")
WIDTHS = {"plain": (16, 32, 32), "deep": (16, 16, 32, 32, 32)}


class RescueSetting(NamedTuple):
    """What is trained, and for how long.

    Attributes:
        rate: at which the network collapses.
        moments: epochs after which the collapse is noticed.
        epochs: of the whole budget.
    """

    title: str
    data: str
    architecture: str
    rate: float
    moments: tuple[int, ...]
    epochs: int
    seeds: int


class ConvClassifier(pl.LightningModule):
    """Convolutions with ReLU, pooling, and a linear classifier, trained by SGD with momentum."""

    def __init__(self, architecture: str, image_shape: Sequence[int], rate: float) -> None:
        super().__init__()
        channels, side, _ = image_shape
        layers: list[nn.Module] = []
        for width in WIDTHS[architecture]:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            if side > 4 and len(layers) // 2 != 2:  # two convolutions share the second size
                layers.append(nn.MaxPool2d(2))
                side //= 2
            channels = width
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * side**2, 10))
        self.rate = rate
        self.optimizer_state: dict[str, Any] | None = None  # to continue with

    def forward(self, images: Tensor) -> Tensor:  # (B, channels, H, W) -> (B, 10)
        return self.layers(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, classes = batch
        return F.cross_entropy(self(images), classes)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = torch.optim.SGD(self.parameters(), self.rate, momentum=0.9)
        if self.optimizer_state is not None:
            optimizer.load_state_dict(self.optimizer_state)
            for group in optimizer.param_groups:
                group["lr"] = self.rate
        return optimizer

    def on_train_end(self) -> None:
        self.optimizer_state = copy.deepcopy(self.trainer.optimizers[0].state_dict())


@torch.no_grad()
def silent_filters(network: ConvClassifier, images: Tensor) -> dict[str, list[int]]:
    """Return the filters of each convolution that none of these images activates."""
    silent, x, name = {}, images, ""
    for index, layer in enumerate(network.layers):
        x = layer(x)
        if isinstance(layer, nn.Conv2d):
            name = f"layers.{index}"
        elif isinstance(layer, nn.ReLU):
            is_silent = ~(x.amax((0, 2, 3)) > 0)  # also where it is NaN
            silent[name] = is_silent.nonzero().flatten().tolist()
    return silent


@torch.no_grad()
def accuracy_of(network: ConvClassifier, test: TensorDataset) -> float:
    images, classes = test.tensors
    return float((network(images).argmax(1) == classes).float().mean())


class RestartSilentFilters(pl.Callback):
    """Restarts the silent filters of one layer after the other, with the edits of the page.

    Each layer waits for the edit of the one before. The outgoing weights of restarted filters
    become zero.

    Args:
        revacnn: carries out the edits; it comes before this callback.
        probe: images that show which filters are silent, (n, channels, height, width).
        fresh: responses of a new network to them, by layer: their standard deviations. If given,
            the first layer comes first, so that later ones see its new filters, and all filters of
            a layer are scaled to such a response before the next one. None: the last layer comes
            first, and nothing is scaled.
    """

    def __init__(
        self, revacnn: ReVACNN, probe: Tensor, fresh: dict[str, float] | None = None
    ) -> None:
        self.revacnn, self.probe, self.fresh = revacnn, probe, fresh
        self.left: list[str] | None = None  # layers
        self.pending: Any = None
        self.layer = ""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: ConvClassifier, batch: Any, batch_idx: int
    ) -> None:
        if self.left is None:
            layers = list(silent_filters(pl_module, self.probe))
            self.left = layers[::-1] if self.fresh is None else layers
        if self.pending is not None:
            if self.pending.reply is None:
                return
            self.pending.result()  # raises if the edit was refused
            self.pending = None
            self._finish(pl_module)
        while self.left and self.pending is None:
            self.layer = self.left.pop(0)
            filters = silent_filters(pl_module, self.probe)[self.layer]
            if filters:
                self.pending = self.revacnn.steer(Reinitialize(self.layer, filters))
            else:
                self._finish(pl_module)

    def _finish(self, network: ConvClassifier) -> None:
        """Scale the layer, and the classifier after the last one; forget the old momentum."""
        if self.fresh is None:
            return
        layers = [self.layer] if self.left else list(self.fresh)[-2:]
        for layer in layers:
            scale_filters_to_response(network, layer, self.fresh[layer], self.probe)
        for state in network.trainer.optimizers[0].state.values():
            state["momentum_buffer"].zero_()


@torch.no_grad()
def response_deviations(network: ConvClassifier, images: Tensor) -> dict[str, Tensor]:
    """Return the standard deviation of each output of each convolution and of the classifier."""
    found, x = {}, images
    for index, layer in enumerate(network.layers):
        x = layer(x)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            found[f"layers.{index}"] = x.std((0, 2, 3) if x.ndim == 4 else 0)
    return found


@torch.no_grad()
def scale_filters_to_response(
    network: ConvClassifier, layer: str, response: float, images: Tensor
) -> None:
    """Scale each filter of a layer so that its response has this standard deviation.

    That is layer-sequential unit-variance initialization (Mishkin & Matas 2016, "All you need is a
    good init", arXiv:1511.06422) with the variance of a new network instead of 1: the rate suits
    that one. Filters without any response stay as they are.
    """
    module = network.get_submodule(layer)
    std = response_deviations(network, images)[layer]
    factor = torch.where((std > 1e-6) & std.isfinite(), response / std, torch.ones_like(std))
    module.weight *= factor.view(-1, *[1] * (module.weight.ndim - 1))
    module.bias *= factor


def train_quietly(
    network: ConvClassifier, images: Images, epochs: int, callbacks: Sequence[Any] = ()
) -> ConvClassifier:
    """Train for some epochs, quietly; return the network."""
    if epochs > 0:
        with quiet_training():
            trainer = pl.Trainer(
                accelerator="cpu", callbacks=list(callbacks), enable_checkpointing=False,
                enable_model_summary=False, enable_progress_bar=False, logger=False,
                max_epochs=epochs,
            )  # fmt: skip
            trainer.fit(network, _batches(images.train))
    return network


def train_after_treatment(
    network: ConvClassifier, arm: str, setting: RescueSetting, images: Images, left: int
) -> ConvClassifier:
    """Return a copy of a collapsed network after one treatment and the epochs that are left."""
    if arm == "start over":
        network = ConvClassifier(setting.architecture, images.shape, setting.rate)
    else:
        network = copy.deepcopy(network)
    callbacks: list[Any] = []
    if arm != "leave":
        network.rate = setting.rate * LOWER
    if arm.startswith("restart"):
        revacnn, probe, fresh = ReVACNN(), images.train.tensors[0][:PROBE_IMAGES], None
        if arm == "restart front to back":
            new = ConvClassifier(setting.architecture, images.shape, setting.rate)
            fresh = {
                name: float(std.mean()) for name, std in response_deviations(new, probe).items()
            }
        callbacks = [revacnn, RestartSilentFilters(revacnn, probe, fresh)]
    return train_quietly(network, images, left, callbacks)


def _batches(dataset: TensorDataset) -> DataLoader:
    """Return a loader that reads whole batches, which is faster than sample by sample."""
    sampler = BatchSampler(RandomSampler(dataset), BATCH_SIZE, drop_last=True)
    return DataLoader(dataset, sampler=sampler, batch_size=None)
