"""The preprocessing of the data, used for pictures."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from revacnn_lightning.runtime.picture_fitting import dataset_preprocessing, fit_picture

GREEN = np.full((4, 4, 3), (0, 255, 0), np.uint8)
LIKE = torch.zeros(1, 3, 4, 4)
CPU = torch.device("cpu")


class Images(Dataset[Tensor]):
    """A dataset with a transform, as those of torchvision."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform
        self.calls = 0


def to_tensor(picture: Any) -> Tensor:
    values = torch.from_numpy(np.array(picture)).float() / 255
    return values[None] if values.ndim == 2 else values.permute(2, 0, 1)


def test_the_transform_of_the_validation_data_prepares_pictures_also_of_a_subset() -> None:
    data = Subset(Images(lambda picture: 2 * to_tensor(picture) - 1), [0])
    image, note = fit_picture(GREEN, LIKE, dataset_preprocessing(data, CPU))
    assert image[:, 0, 0].tolist() == [-1, 1, -1]
    assert note == "prepared by the transform of the validation data"
    gray, _ = fit_picture(GREEN, LIKE[:, :1], dataset_preprocessing(data, CPU))
    assert gray.shape == (1, 4, 4)


def test_a_transform_changes_neither_the_data_nor_random_states() -> None:
    def transform(picture: Any) -> Tensor:
        data.calls += 1
        return to_tensor(picture) + random.random() + torch.rand(()) + np.random.rand()

    data = Images(transform)
    states = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].copy()
    fit_picture(GREEN, LIKE, dataset_preprocessing(data, CPU))
    assert data.calls == 0
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    assert np.array_equal(np.random.get_state()[1], states[2])


def test_a_transform_that_does_not_fit_is_named_and_the_range_is_used_instead() -> None:
    def fails(picture: Any) -> Tensor:
        raise KeyError("image")

    for transform, reason in [
        (fails, "cannot prepare it (KeyError"),
        (np.asarray, "returns ndarray, no tensor"),
        (lambda picture: to_tensor(picture)[:1], "returns the shape (1, 4, 4)"),
    ]:
        image, note = fit_picture(GREEN, LIKE, dataset_preprocessing(Images(transform), CPU))
        assert image.shape == (3, 4, 4)
        assert note.startswith("its values are scaled to the range")
        assert reason in note


def test_a_range_without_finite_values_is_zero_to_one() -> None:
    image, _ = fit_picture(GREEN, torch.full((1, 3, 4, 4), torch.nan), None)
    assert image[:, 0, 0].tolist() == [0, 1, 0]


def test_a_dataset_without_a_transform_has_no_preprocessing() -> None:
    assert dataset_preprocessing([1, 2], CPU) is None
    assert dataset_preprocessing(Images(None), CPU) is None
    assert dataset_preprocessing(None, CPU) is None
