"""The first sample of a batch, as it is shown left of the network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from revacnn_lightning.runtime.batch_images import find_images
from revacnn_lightning.runtime.batch_input import (
    channel_l1_norms,
    encode_downsampled_input,
    first_input,
)


def input_of(batch: Any) -> Tensor | None:
    return first_input(batch, find_images(batch))


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_images_of_any_number_of_channels_are_inputs(channels: int) -> None:
    images = torch.randn(3, channels, 5, 7)
    found = input_of([images, torch.arange(3)])
    assert found is not None
    assert torch.equal(found, images[0])
    assert encode_downsampled_input(found).shape == (channels, 5, 7)
    sums = channel_l1_norms(found)
    assert sums == pytest.approx(images[0].abs().sum((1, 2)).tolist(), rel=1e-6)


@pytest.mark.parametrize(
    ("shape", "encoded"),
    [
        ((2, 3, 1, 1), (3, 1, 1)),
        ((2, 1, 40), (1, 40)),  # a signal
        ((2, 1, 16000), (1, 500)),
        ((2, 1, 9, 6, 5), (1, 6, 5)),  # a volume: its middle slice
        ((2, 20), (20,)),
        ((2, 3, 400, 200), (3, 96, 48)),
    ],
)
def test_an_input_is_sent_small(shape: tuple[int, ...], encoded: tuple[int, ...]) -> None:
    found = input_of((torch.randn(shape), torch.zeros(2, dtype=torch.long)))
    assert found is not None
    sent = encode_downsampled_input(found)
    assert sent.shape == encoded
    assert sent.dtype == np.float16
    assert np.abs(sent).max() <= 1


def test_a_volume_shows_its_middle_slice() -> None:
    volume = torch.zeros(1, 5, 2, 2)
    volume[0, 2] = 3.0
    assert encode_downsampled_input(volume).tolist() == [[[1, 1], [1, 1]]]


@pytest.mark.parametrize(
    "batch",
    [None, "text", ["a", "b"], torch.zeros(0, 3, 4, 4), torch.zeros(4, dtype=torch.long), [], {}],
)
def test_a_batch_without_an_input_has_none(batch: Any) -> None:
    assert input_of(batch) is None
