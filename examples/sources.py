"""Images for the examples: two sources without a download, CIFAR-10, and any image folder.

Each source has a training and a validation dataset of (image, class). Images are float tensors of
shape (channels, height, width) with a mean of about zero and a variance of about one.
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

IMAGE_SIZE = 32  # pixels, of the color images
IMAGE_SUFFIXES = datasets.folder.IMG_EXTENSIONS


class Source(NamedTuple):
    """The data of an example."""

    name: str
    train: Dataset
    validation: Dataset
    channels: int
    class_names: tuple[str, ...]

    @property
    def classes(self) -> int:
        return len(self.class_names)


class _Shifted(Dataset):
    """Images that appear several times per epoch, shifted by up to one pixel and with noise.

    Without this, a small network memorizes the digits within seconds.
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
    """Random crops of photographs. The class is their rotation: 0, 90, 180 or 270 degrees."""

    def __init__(self, photos: list[Tensor], length: int, seed: int | None = None) -> None:
        self.photos, self.length, self.seed = photos, length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        generator = torch.Generator()
        # Validation crops are the same in every epoch; training crops are not.
        generator.manual_seed(
            self.seed + index if self.seed is not None else int(torch.randint(2**62, (1,)))
        )

        def random_int(limit: int) -> int:
            return int(torch.randint(limit, (1,), generator=generator))

        photo = self.photos[random_int(len(self.photos))]
        top = random_int(photo.shape[1] - IMAGE_SIZE + 1)
        left = random_int(photo.shape[2] - IMAGE_SIZE + 1)
        crop = photo[:, top : top + IMAGE_SIZE, left : left + IMAGE_SIZE]
        rotation = random_int(4)
        return torch.rot90(crop, rotation, dims=(1, 2)).contiguous(), rotation


def digits() -> Source:
    """Return scikit-learn's 1,797 handwritten digits, gray, 8×8. Every fifth is for validation."""
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
        class_names=tuple("0123456789"),
    )


def photos() -> Source:
    """Return crops of scikit-learn's two sample photographs, whose right quarters are held out."""
    images = [
        torch.tensor(np.asarray(photo), dtype=torch.float32).permute(2, 0, 1) / 255
        for photo in load_sample_images().images
    ]
    images = [(image - 0.45) / 0.25 for image in images]
    edges = [3 * image.shape[2] // 4 for image in images]
    return Source(
        "rotated photograph crops",
        _RotatedCrops([p[:, :, :edge] for p, edge in zip(images, edges, strict=True)], 11_520),
        _RotatedCrops([p[:, :, edge:] for p, edge in zip(images, edges, strict=True)], 512, seed=0),
        channels=3,
        class_names=("upright", "left", "upside down", "right"),
    )


def _color_transform(train: bool) -> Callable[[object], Tensor]:
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
    """Return CIFAR-10. torchvision downloads it into ``root`` the first time."""
    train = datasets.CIFAR10(
        root, train=True, download=True, transform=_color_transform(train=True)
    )
    test = datasets.CIFAR10(
        root, train=False, download=True, transform=_color_transform(train=False)
    )
    return Source("CIFAR-10", train, test, channels=3, class_names=tuple(train.classes))


def folder(root: Path) -> Source:
    """Return the images of ``root/train/<class>/*`` and ``root/test/<class>/*``."""
    for split in ("train", "test"):
        if not _has_images(root / split):
            sys.exit(f"No images found in {root / split}/<class>/*.jpg (or png, ...)")
    train = datasets.ImageFolder(str(root / "train"), _color_transform(train=True))
    test = datasets.ImageFolder(str(root / "test"), _color_transform(train=False))
    if train.classes != test.classes:
        sys.exit(f"Classes differ: {root}/train has {train.classes}, test has {test.classes}")
    return Source(root.name, train, test, channels=3, class_names=tuple(train.classes))


def _has_images(split: Path) -> bool:
    """Return whether there are class folders and each of them contains an image."""
    classes = [child for child in split.iterdir() if child.is_dir()] if split.is_dir() else []
    return bool(classes) and all(
        any(file.suffix.lower() in IMAGE_SUFFIXES for file in child.iterdir()) for child in classes
    )


SOURCES: dict[str, Callable[[], Source]] = {"digits": digits, "photos": photos, "cifar10": cifar10}
