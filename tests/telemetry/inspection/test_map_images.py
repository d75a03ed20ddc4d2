"""Pictures of the maps of every kind of layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from revacnn_lightning.telemetry.inspection.map_images import first_image_thumbnails

CASES = [
    (nn.Conv1d(2, 3, 3), (4, 3, 9), (3, 1, 9)),
    (nn.Conv1d(2, 3, 3), (3, 9), (3, 1, 9)),  # without a batch
    (nn.Conv2d(2, 3, 3), (4, 3, 5, 6), (3, 5, 6)),
    (nn.Conv3d(2, 3, 3), (4, 3, 5, 6, 7), (3, 6, 7)),
    (nn.Conv3d(2, 3, 3), (3, 5, 6, 7), (3, 6, 7)),
    (nn.Linear(2, 3), (4, 3), (3, 1, 1)),
    (nn.Linear(2, 3), (4, 8, 3), (3, 1, 8)),
    (nn.Linear(2, 3), (4, 5, 6, 3), (3, 5, 6)),
    (nn.Conv1d(2, 3, 3), (4, 3, 100), (3, 1, 32)),
]


@pytest.mark.parametrize(("layer", "output", "shape"), CASES, ids=str)
def test_maps_are_pictures_of_the_first_image(layer, output, shape) -> None:
    assert first_image_thumbnails(layer, torch.randn(output)).shape == shape


@pytest.mark.parametrize(("depth", "index"), [(0.0, 0), (0.5, 2), (1.0, 4)])
def test_of_a_volume_one_slice_is_shown(depth: float, index: int) -> None:
    output = torch.randn(4, 3, 5, 6, 7)
    assert torch.equal(
        first_image_thumbnails(nn.Conv3d(2, 3, 3), output, depth), output[0, :, index]
    )


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(2, 3, 3), (0, 3, 9)),
        (nn.Conv3d(2, 3, 3), (0, 3, 5, 6, 7)),
        (nn.Linear(2, 3), (0, 3)),
        (nn.Conv2d(2, 3, 3), (4, 3)),
        (nn.Conv3d(2, 3, 3), (4, 3)),
        (nn.Linear(2, 3), ()),
    ],
)
def test_without_an_image_there_is_no_picture(layer, shape) -> None:
    assert first_image_thumbnails(layer, torch.zeros(shape)) is None
