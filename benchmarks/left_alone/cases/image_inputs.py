"""Images of several sizes, types and layouts, with others or with numbers beside them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.left_alone.cases.small import Classifier, dataset, encoder, loader_of, samples
from benchmarks.left_alone.registry import register_case
from benchmarks.left_alone.training import Training


class MultiCrop(Classifier):
    """Crops of two sizes go through one network, those of a size together (SwAV, DINO)."""

    def __init__(self) -> None:
        super().__init__(encoder())

    def loss(self, batch: Any) -> Tensor:
        large = self(torch.cat(batch[:2])).chunk(2)
        small = self(torch.cat(batch[2:])).chunk(2)
        target = large[0].detach().softmax(1)
        return -sum((target * each.log_softmax(1)).mean() for each in (large[1], *small))  # type: ignore[return-value]


@register_case(output=lambda module, batch: module(batch[0]))
def train_multi_crop(training: Training) -> None:
    images = samples()[0].view(-1, 8, 1, 8, 8)
    crops = [[x, x.flip(3), x[..., :6, :6], x[..., 2:, 2:]] for x in images]
    training.fit(MultiCrop(), loader_of(crops))


@register_case()
def train_sizes_that_change(training: Training) -> None:
    images, labels = samples()
    sizes = [8, 12, 16]
    items = [
        (F.interpolate(x, size=sizes[i % 3]), y)
        for i, (x, y) in enumerate(zip(images.split(8), labels.split(8), strict=True))
    ]
    training.fit(Classifier(), loader_of(items))


@register_case()
def train_one_image_per_batch(training: Training) -> None:
    images, labels = samples(16)
    training.fit(
        Classifier(), loader_of([(images[i : i + 1], labels[i : i + 1]) for i in range(16)])
    )


class ConvertsBytes(Classifier):
    """Receives channels-last bytes, and converts them in its forward."""

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images.permute(0, 3, 1, 2).float() / 255)


@register_case()
def train_channels_last_bytes(training: Training) -> None:
    images, labels = samples()
    pixels = (images.sigmoid() * 255).byte().permute(0, 2, 3, 1)
    items = list(zip(pixels.split(8), labels.split(8), strict=True))
    training.fit(ConvertsBytes(), loader_of(items))


class ImageAndNumbersClassifier(Classifier):
    """Reads an image and numbers."""

    def __init__(self) -> None:
        super().__init__(encoder())
        self.head = nn.Linear(6 + 2, 3)

    def forward(self, images: Tensor, numbers: Tensor) -> Tensor:
        return self.head(torch.cat([self.net(images), numbers], 1))

    def loss(self, batch: Any) -> Tensor:
        images, labels = batch["image"], batch["label"]
        return F.cross_entropy(self(images, batch["numbers"]), labels)


@register_case(output=lambda module, batch: module(batch["image"], batch["numbers"]))
def train_image_and_numbers(training: Training) -> None:
    images, labels = samples()
    items = [
        {"image": x, "numbers": x.flatten(1)[:, :2], "label": y, "name": ["a"] * 8, "none": None}
        for x, y in zip(images.split(8), labels.split(8), strict=True)
    ]
    training.fit(ImageAndNumbersClassifier(), loader_of(items))


class HardSamplesFirst(Classifier):
    """Makes a new loader in every epoch, with the hard samples first."""

    def __init__(self) -> None:
        super().__init__()
        self.order = list(range(6 * 8))

    def train_dataloader(self) -> Any:
        subset = torch.utils.data.Subset(dataset(6), self.order)
        return torch.utils.data.DataLoader(subset, batch_size=8)

    def on_train_epoch_end(self) -> None:
        self.order.reverse()


@register_case()
def train_resampled(training: Training) -> None:
    training.fit(HardSamplesFirst(), max_epochs=2, reload_dataloaders_every_n_epochs=1)
