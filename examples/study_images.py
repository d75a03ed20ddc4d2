"""Images of the studies: a small part of CIFAR-10 from a folder, or handwritten digits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset

__all__ = ["Images", "load_images"]

TRAIN_PER_CLASS, TEST_PER_CLASS = 1000, 200


@dataclass(frozen=True)
class Images:
    """Images in memory: float32 (n, channels, height, width), and their classes, int64 (n,)."""

    train: TensorDataset
    test: TensorDataset

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.train.tensors[0].shape[1:])


def read_image_folder(root: Path, per_class: int) -> TensorDataset:
    """Return the first images of each class of an image folder, all of one size."""
    pixels, classes = [], []
    for number, folder in enumerate(sorted(path for path in root.iterdir() if path.is_dir())):
        for file in sorted(folder.iterdir())[:per_class]:
            pixels.append(np.asarray(Image.open(file).convert("RGB")))
            classes.append(number)
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float().div(255)
    return TensorDataset((images - 0.45) / 0.25, torch.tensor(classes))


def load_images(
    data: str,
    root: Path | None,
    train_per_class: int = TRAIN_PER_CLASS,
    test_per_class: int = TEST_PER_CLASS,
) -> Images:
    """Return the images of a study. Every fifth digit is for the test.

    Args:
        data: "cifar10" or "digits".
        root: the folder of CIFAR-10: ``train/<class>/*.jpg`` and ``test/<class>/*.jpg``.
        train_per_class: how many images of each class of CIFAR-10 to train with.
        test_per_class: how many to test with.
    """
    if data == "digits":
        found = load_digits()
        x = torch.tensor(found.images, dtype=torch.float32)[:, None]  # (1797, 1, 8, 8)
        x, classes = (x - x.mean()) / x.std(), torch.tensor(found.target)
        test = torch.arange(len(x)) % 5 == 0
        return Images(
            TensorDataset(x[~test], classes[~test]), TensorDataset(x[test], classes[test])
        )
    if root is None:
        raise SystemExit(f"{data} is needed: pass the folder that holds train/ and test/")
    folders = root / "train", root / "test"
    for each in folders:
        if not each.is_dir():
            raise SystemExit(f"{each} is not a folder: pass the folder that holds train/ and test/")
    return Images(
        read_image_folder(folders[0], train_per_class),
        read_image_folder(folders[1], test_per_class),
    )
