"""The ranking of training images, against all images of the same batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from revacnn_lightning.telemetry import Recorder
from revacnn_lightning.telemetry.inspection.receptive_field import PixelBox
from revacnn_lightning.telemetry.inspection.responses import ResponseRecorder
from revacnn_lightning.telemetry.inspection.top_images import (
    MAX_AGE,
    MAX_CROP_SIDE,
    MAX_IMAGES,
    TopRecentImages,
    to_uint8_image,
)
from tests.telemetry import reference
from tests.telemetry.inspection.test_layer_detail import Net


def batch(seed: int, size: int = 8, channels: int = 3, side: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, channels, side, side, generator=generator)


def whole_image(images: Tensor):
    """Return a ``box_of`` that is the whole image at every position."""
    return lambda index, position: PixelBox(0, 0, *images.shape[2:])


def add(top_images: TopRecentImages, step: int, responses: list[float], images: Tensor) -> None:
    top_images.add(step, np.array([responses, [0.0] * len(responses)]), images, whole_image(images))


@pytest.mark.parametrize("index", [0, 3])
def test_ranking_has_the_strongest_images_of_all_batches(index: int):
    model, top_images, everything = Net(), TopRecentImages(), []
    recorder = Recorder(model)
    recorder.attach()
    recorder.responses.select([("first", index)])
    for step in range(-1, 12):
        images = batch(step % 100)
        recorder.begin_batch()
        reference.train_step(model, images)
        recorder.end_batch()
        if step < 0:  # the discovery batch
            continue
        responses = recorder.responses.pop_responses()["first", index]
        top_images.add(
            step, responses.peaks.numpy(), images, lambda index, position: PixelBox(0, 0, 12, 12)
        )
        maps = model.map[:, index]
        peaks = maps.amax((1, 2)).tolist()
        everything += [(peak, step, image) for peak, image in zip(peaks, images, strict=True)]
        with torch.no_grad():  # the filter changes from batch to batch
            model.first.weight += 0.1 * torch.randn(model.first.weight.shape)
    recorder.detach()
    best = sorted(everything, key=lambda entry: -entry[0])[:MAX_IMAGES]
    ranking = top_images.ranked(step)
    assert [ranked.step for ranked in ranking] == [step for _, step, _ in best]
    np.testing.assert_allclose(
        [ranked.response for ranked in ranking], [peak for peak, _, _ in best]
    )
    for ranked, (_, _, image) in zip(ranking, best, strict=True):
        np.testing.assert_array_equal(ranked.crop[:, 0], to_uint8_image(image))


def test_crop_is_the_receptive_field_of_the_peak():
    maps = torch.zeros(2, 3, 4, 5)
    maps[0, 1, 2, 3], maps[1, 1, 3, 0] = 5.0, 7.0
    recorder = ResponseRecorder()
    recorder.select([("conv", 1)])
    recorder.begin_batch(True)
    assert recorder.needs_map("conv")
    assert not recorder.needs_map("other")
    recorder.add_map("conv", maps)
    responses = recorder.pop_responses()["conv", 1]
    assert responses.map_size == (4, 5)
    assert responses.peaks.tolist() == [[5, 7], [13, 15]]
    images, top_images = batch(0, 2), TopRecentImages()
    top_images.add(
        0,
        responses.peaks.numpy(),
        images,
        lambda index, position: PixelBox(0, 0, position % 5 + 1, 2),
    )
    assert [ranked.crop.shape for ranked in top_images.ranked(0)] == [(3, 1, 1, 2), (3, 1, 4, 2)]
    assert [ranked.image_size for ranked in top_images.ranked(0)] == [(1, 12, 12)] * 2


def test_nonfinite_and_nonpositive_responses_are_ignored():
    top_images, images = TopRecentImages(), batch(0, 6)
    add(top_images, 0, [np.nan, np.inf, -np.inf, 0.0, -1.0, 2.0], images)
    assert [ranked.response for ranked in top_images.ranked(0)] == [2.0]


def test_image_is_ranked_once_across_epochs():
    top_images, images = TopRecentImages(), batch(0, 2)
    add(top_images, 0, [3.0, 2.0], images)
    add(top_images, 50, [1.0, 4.0], images)
    assert [(ranked.response, ranked.step) for ranked in top_images.ranked(50)] == [
        (4.0, 50),
        (1.0, 50),
    ]


def test_old_responses_expire():
    top_images = TopRecentImages()
    add(top_images, 0, [9.0], batch(0, 1))
    add(top_images, 10, [2.0], batch(1, 1))
    assert len(top_images.ranked(MAX_AGE - 1)) == 2
    assert [ranked.step for ranked in top_images.ranked(MAX_AGE)] == [10]
    add(top_images, MAX_AGE + 20, [1.0], batch(2, 1))
    assert [ranked.response for ranked in top_images.ranked(MAX_AGE + 20)] == [1.0]


def test_only_ranked_images_are_read():
    class CountingImages:
        read = 0
        shape = (8, 3, 12, 12)

        def __getitem__(self, index: int) -> Tensor:
            CountingImages.read += 1
            return batch(CountingImages.read)[0]

    top_images, images = TopRecentImages(), CountingImages()
    add(top_images, 0, list(range(20, 32)), images)
    assert CountingImages.read == MAX_IMAGES
    add(top_images, 1, [1.0] * 8, images)
    assert CountingImages.read == MAX_IMAGES


def test_number_and_size_of_crops_are_bounded():
    top_images, images = TopRecentImages(), batch(0, 12, side=300)
    add(top_images, 0, list(range(1, 13)), images)
    assert len(top_images.ranked(0)) == MAX_IMAGES
    assert all(
        ranked.crop.shape == (3, 1, MAX_CROP_SIDE, MAX_CROP_SIDE) for ranked in top_images.ranked(0)
    )


@pytest.mark.parametrize(("channels", "expected"), [(1, 1), (3, 3), (4, 1)])
def test_crops_are_gray_or_rgb_and_use_the_full_range(channels: int, expected: int):
    pixels = to_uint8_image(batch(0, channels=channels)[0])
    assert pixels.shape == (expected, 12, 12)
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert not to_uint8_image(torch.full((1, 4, 4), torch.nan)).any()


def test_images_of_different_sizes_are_ranked():
    images = [torch.rand(3, 8, size) for size in (6, 9)]
    top_images = TopRecentImages()
    peaks = np.array([[1.0, 2.0], [0.0, 0.0]])
    top_images.add(
        0, peaks, images, lambda index, position: PixelBox(0, 0, *images[index].shape[1:])
    )
    assert [image.image_size for image in top_images.ranked(0)] == [(1, 8, 9), (1, 8, 6)]
