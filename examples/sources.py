"""Real images for the examples: two sources that need no download, and two that are usual.

Every source is a pair of datasets (train, validation) of (image, class) with float images of
shape (channels, height, width), roughly zero mean and unit variance.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset
from torchvision import datasets, transforms

IMAGE_SIZE = 32  # pixels, of the colour sources
IMAGE_SUFFIXES = datasets.folder.IMG_EXTENSIONS


class Source(NamedTuple):
    """What an example needs to know of its data."""

    name: str
    train: Dataset
    validation: Dataset
    channels: int
    classes: int


class _Shifted(Dataset):
    """Digits, each drawn several times an epoch, shifted by up to a pixel, with a little noise.

    So a small network does not learn them by heart within seconds, and stays worth watching.
    """

    def __init__(self, images: Tensor, labels: Tensor, repeats: int) -> None:
        self.images, self.labels, self.repeats = images, labels, repeats

    def __len__(self) -> int:
        return self.repeats * len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        index %= len(self.labels)
        shift = torch.randint(-1, 2, (2,)).tolist()
        image = torch.roll(self.images[index], shift, dims=(1, 2))
        return image + 0.2 * torch.randn_like(image), self.labels[index]


class _RotatedCrops(Dataset):
    """Random crops of photographs, each turned by 0, 90, 180 or 270 degrees: which one is asked."""

    def __init__(self, photos: list[Tensor], length: int, seed: int | None = None) -> None:
        self.photos, self.length, self.seed = photos, length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        generator = torch.Generator()
        # Validation crops are the same every epoch; training crops never are.
        generator.manual_seed(
            self.seed + index if self.seed is not None else int(torch.randint(2**62, (1,)))
        )

        def below(limit: int) -> int:
            return int(torch.randint(limit, (1,), generator=generator))

        photo = self.photos[below(len(self.photos))]
        top = below(photo.shape[1] - IMAGE_SIZE + 1)
        left = below(photo.shape[2] - IMAGE_SIZE + 1)
        crop = photo[:, top : top + IMAGE_SIZE, left : left + IMAGE_SIZE]
        turns = below(4)
        return torch.rot90(crop, turns, dims=(1, 2)).contiguous(), turns


def digits() -> Source:
    """scikit-learn's 1,797 handwritten digits, 8x8, grey; every fifth is for validation."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None]  # (1797, 1, 8, 8)
    images = (images - images.mean()) / images.std()
    labels = torch.tensor(data.target)
    held_out = torch.arange(len(labels)) % 5 == 0
    return Source(
        "handwritten digits",
        _Shifted(images[~held_out], labels[~held_out], repeats=8),
        TensorDataset(images[held_out], labels[held_out]),
        channels=1,
        classes=10,
    )


def photos() -> Source:
    """Crops of scikit-learn's two sample photographs; the right quarter of each is held out."""
    whole = [
        torch.tensor(np.asarray(photo), dtype=torch.float32).permute(2, 0, 1) / 255
        for photo in load_sample_images().images
    ]
    whole = [(photo - 0.45) / 0.25 for photo in whole]
    edges = [3 * photo.shape[2] // 4 for photo in whole]
    return Source(
        "rotated photograph crops",
        _RotatedCrops([p[:, :, :edge] for p, edge in zip(whole, edges, strict=True)], 11_520),
        _RotatedCrops([p[:, :, edge:] for p, edge in zip(whole, edges, strict=True)], 512, seed=0),
        channels=3,
        classes=4,
    )


def _colour(train: bool) -> Callable[[object], Tensor]:
    augment = [transforms.RandomCrop(IMAGE_SIZE, padding=4), transforms.RandomHorizontalFlip()]
    return transforms.Compose(
        [
            transforms.Resize(IMAGE_SIZE),
            transforms.CenterCrop(IMAGE_SIZE),
            *(augment if train else []),
            transforms.ToTensor(),
            transforms.Normalize((0.45, 0.45, 0.45), (0.25, 0.25, 0.25)),
        ]
    )


def cifar10(root: Path = Path("data")) -> Source:
    """CIFAR-10 by torchvision, downloaded into ``root`` the first time."""
    train = datasets.CIFAR10(root, train=True, download=True, transform=_colour(train=True))
    test = datasets.CIFAR10(root, train=False, download=True, transform=_colour(train=False))
    return Source("CIFAR-10", train, test, channels=3, classes=10)


def folder(root: Path) -> Source:
    """Any folder with ``train/<class>/*`` and ``test/<class>/*`` images (ImageFolder layout)."""
    for part in ("train", "test"):
        if not _has_images(root / part):
            sys.exit(f"No images found: looked for {root / part}/<class>/*.jpg (or png, ...)")
    train = datasets.ImageFolder(str(root / "train"), _colour(train=True))
    test = datasets.ImageFolder(str(root / "test"), _colour(train=False))
    if train.classes != test.classes:
        sys.exit(f"The classes differ: {root}/train has {train.classes}, test {test.classes}")
    return Source(root.name, train, test, channels=3, classes=len(train.classes))


def _has_images(part: Path) -> bool:
    """Whether every class folder of a part, at least one, holds an image."""
    classes = [child for child in part.iterdir() if child.is_dir()] if part.is_dir() else []
    return bool(classes) and all(
        any(file.suffix.lower() in IMAGE_SUFFIXES for file in child.iterdir()) for child in classes
    )


SOURCES: dict[str, Callable[[], Source]] = {"digits": digits, "photos": photos, "cifar10": cifar10}
