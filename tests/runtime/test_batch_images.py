"""The images in batches of any nesting."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.runtime.batch_images import (
    find_image,
    find_image_or_other_input,
    find_images,
)

IMAGES = torch.rand(5, 3, 8, 8)
MASKS = torch.ones(5, 1, 8, 8)
BYTES = torch.zeros(5, 3, 8, 8, dtype=torch.uint8)
BYTE_MASKS = torch.zeros(5, 1, 8, 8, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (IMAGES, IMAGES),
        ([LABELS := torch.arange(5), IMAGES], IMAGES),
        ((BYTES, LABELS), BYTES),
        ({"mask": MASKS, "image": IMAGES}, IMAGES),
        ({"image_mask": MASKS, "x": IMAGES, "image": BYTES}, BYTES),
        ((BYTE_MASKS, IMAGES), IMAGES),
        ((BYTES, MASKS), BYTES),
        ((torch.rand(5, 7, 4), IMAGES), IMAGES),
        ({"pixel_values": {"data": IMAGES}, "x": MASKS}, IMAGES),
        ([None, {"a": [IMAGES]}], IMAGES),
    ],
    ids=range(10),
)
def test_the_images_of_a_batch(batch, expected):
    assert find_images(batch) is expected


def test_a_list_of_images_is_found_as_it_is():
    images = [torch.rand(3, 8, 8), torch.rand(3, 9, 8)]
    assert find_images((images, [{}, {}])) is images
    as_bytes = tuple(torch.zeros(3, 8, 8, dtype=torch.uint8) for _ in range(2))
    assert find_images({"images": as_bytes}) is as_bytes


def test_the_images_of_a_list_of_samples():
    masks = torch.zeros(4, 8, 8, dtype=torch.uint8)
    samples = [({"masks": masks}, torch.rand(3, 8, size)) for size in (8, 9)]
    found = find_images(samples)
    assert [image.shape for image in found] == [(3, 8, 8), (3, 8, 9)]


def test_a_pair_of_sequence_batches_is_no_list_of_images():
    inputs, targets = torch.rand(8, 40, 100), torch.rand(8, 40, 100)
    assert find_images([inputs, targets]) is inputs


def test_images_of_many_channels_in_a_long_list_are_images():
    images = [torch.rand(13, 8, 8) for _ in range(4)]
    assert find_images((images, torch.arange(4))) is images


def test_sequences_and_videos_are_found_if_there_is_nothing_else():
    video = torch.rand(2, 5, 3, 8, 8)
    assert find_images((torch.arange(2), video)) is video
    assert find_images((torch.arange(2), torch.rand(2, 4))) is None


def test_the_users_function_is_used_instead():
    assert find_images((IMAGES, MASKS), lambda batch: batch[1]) is MASKS


@pytest.mark.parametrize(
    "make_sample",
    [
        lambda image: (image, 3),
        lambda image: (image, torch.rand(3, 8, 8)),
        lambda image: {"mask": torch.ones(1, 8, 8), "image": image},
        lambda image: ({"masks": torch.zeros(2, 8, 8, dtype=torch.uint8)}, image),
        lambda image: image,
    ],
)
def test_the_image_of_a_sample(make_sample):
    image = torch.rand(3, 8, 8)
    assert find_image(make_sample(image)) is image


@pytest.mark.parametrize("shape", [(2, 1024), (1, 4, 8, 8), (20,)])
def test_a_signal_a_volume_and_a_row_of_numbers_could_not_be_chosen(shape):
    """Only the images of the validation data could, though the page shows all inputs."""
    values = torch.rand(shape)
    assert find_image_or_other_input((values, 1)) is values
    assert find_image_or_other_input({"index": torch.arange(20), "values": values}) is values
    assert find_image_or_other_input((torch.arange(20), 1)) is None


def test_the_image_or_signal_of_a_sample_comes_before_its_rows_of_numbers():
    row, signal, image = torch.rand(6), torch.rand(2, 9), torch.rand(3, 8, 8)
    assert find_image_or_other_input((row, signal)) is signal
    assert find_image_or_other_input((row, signal, image)) is image


def test_a_sample_of_bytes_has_an_image():
    image: Tensor = torch.zeros(3, 8, 8, dtype=torch.uint8)
    assert find_image((image, 1)) is image
    assert find_image((torch.rand(4), 1)) is None


@pytest.mark.parametrize("returned", [None, 3, torch.rand(8, 8), [torch.rand(2, 1, 3, 8, 8)]])
def test_what_the_users_function_returns_must_be_images(returned):
    with pytest.raises(EditRefusedError, match=r"must return a tensor \(B, channels, H, W\)"):
        find_images((IMAGES,), lambda batch: returned)


def test_an_error_of_the_users_function_names_it():
    with pytest.raises(EditRefusedError, match=r"the option images=... raised KeyError: 'x'"):
        find_images({}, lambda batch: batch["x"])
