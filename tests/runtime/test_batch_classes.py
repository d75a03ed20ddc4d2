"""The classes of a batch's samples, or why there are none."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from revacnn_lightning.runtime.batch_classes import (
    MIXED,
    NO_CLASSES,
    NUMBERS,
    PIXELS,
    SEVERAL,
    find_classes,
)

IMAGES, LABELS = torch.randn(4, 3, 8, 8), torch.tensor([2, 0, 1, 2])
FEATURES = torch.randn(4, 5)


class Sample(NamedTuple):
    image: torch.Tensor
    label: torch.Tensor


@pytest.mark.parametrize(
    "batch",
    [
        (IMAGES, LABELS),
        [IMAGES, LABELS[:, None]],
        (IMAGES, LABELS.to(torch.uint8), torch.arange(4)),
        (IMAGES, {"weight": torch.arange(4), "label": LABELS}),
        {"index": torch.arange(4), "image": IMAGES, "target": LABELS},
        {"x": IMAGES, "y": {"class": LABELS}},
        Sample(IMAGES, LABELS),
        (FEATURES, LABELS),
        (IMAGES, LABELS.tolist()),
        (IMAGES, LABELS.numpy()),
        (IMAGES, torch.eye(3)[LABELS]),
        (IMAGES, torch.eye(3, dtype=torch.bool)[LABELS]),
    ],
)
def test_the_classes_are_found(batch: Any) -> None:
    found = find_classes(batch)
    assert found.labels is not None
    assert (found.labels.tolist(), found.labels.dtype) == ([2, 0, 1, 2], torch.int64)
    assert found.note == ""


@pytest.mark.parametrize(
    ("batch", "note"),
    [
        (IMAGES, NO_CLASSES),
        ((IMAGES,), NO_CLASSES),
        ((IMAGES, torch.arange(3)), NO_CLASSES),  # of another size
        ({"image": IMAGES, "index": torch.arange(4)}, NO_CLASSES),
        ((IMAGES, torch.rand(4)), NUMBERS),
        ((IMAGES, torch.randn(4, 2)), NUMBERS),
        ((FEATURES, torch.randn(4, 1)), NUMBERS),
        ((IMAGES, torch.tensor([[1, 1], [0, 1], [0, 0], [1, 0]])), SEVERAL),
        ((IMAGES, np.ones((4, 3))), SEVERAL),
        ((IMAGES, torch.tensor([[0.3, 0.7]] * 4)), MIXED),
        ((IMAGES, torch.zeros(4, 8, 8, dtype=torch.int64)), PIXELS),
        ((IMAGES, torch.zeros(4, 1, 8, 8)), NUMBERS),
    ],
)
def test_other_targets_are_named(batch: Any, note: str) -> None:
    found = find_classes(batch)
    assert found.labels is None
    assert found.note == note


def test_the_users_function_says_which_tensor_the_images_are() -> None:
    labels = torch.tensor([1, 0])
    batch = {"masks": IMAGES, "pixels": IMAGES[:2], "label": labels}
    found = find_classes(batch, lambda batch: batch["pixels"])
    assert found.labels is not None
    assert found.labels.tolist() == [1, 0]
