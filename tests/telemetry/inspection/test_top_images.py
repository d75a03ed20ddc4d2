"""The nine images that excite a filter most, against all images of the same batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from revacnn_lightning.telemetry import Recorder
from revacnn_lightning.telemetry.inspection.receptive_field import PixelBox
from revacnn_lightning.telemetry.inspection.top_images import (
    LARGEST_CROP,
    MOST,
    RECENT_BATCHES,
    ResponseRecorder,
    TopImages,
    levels,
)
from tests.telemetry import obvious
from tests.telemetry.inspection.test_layer_detail import Net


def batch(seed: int, size: int = 8, channels: int = 3, side: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, channels, side, side, generator=generator)


def whole(images: Tensor):
    return lambda place: PixelBox(0, 0, *images.shape[2:])


def add(finds: TopImages, step: int, strongest: list[float], images: Tensor) -> None:
    finds.add(step, np.array([strongest, [0.0] * len(strongest)]), images, whole(images))


@pytest.mark.parametrize("index", [0, 3])
def test_they_are_the_strongest_of_all_images_of_all_batches(index: int):
    model, finds, everything = Net(), TopImages(), []
    recorder = Recorder(model)
    recorder.attach()
    recorder.excitement.follow([("first", index)])
    for step in range(-1, 12):
        images = batch(step % 100)
        recorder.begin_batch()
        obvious.train_step(model, images)
        recorder.end_batch()
        if step < 0:  # shows the recorder the way through the network
            continue
        responses = recorder.excitement.take()["first", index]
        finds.add(step, responses.numbers.numpy(), images, lambda place: PixelBox(0, 0, 12, 12))
        maps = model.map[:, index]
        strongest = maps.amax((1, 2)).tolist()
        everything += [(one, step, image) for one, image in zip(strongest, images, strict=True)]
        with torch.no_grad():  # the filter changes meanwhile
            model.first.weight += 0.1 * torch.randn(model.first.weight.shape)
    recorder.detach()
    best = sorted(everything, key=lambda one: -one[0])[:MOST]
    found = finds.best(step)
    assert [find.step for find in found] == [one[1] for one in best]
    np.testing.assert_allclose([find.response for find in found], [one[0] for one in best])
    for find, (_, _, image) in zip(found, best, strict=True):
        np.testing.assert_array_equal(find.crop, levels(image))


def test_the_place_of_a_response_is_cropped():
    maps = torch.zeros(2, 3, 4, 5)
    maps[0, 1, 2, 3], maps[1, 1, 3, 0] = 5.0, 7.0
    excitement = ResponseRecorder()
    excitement.follow([("conv", 1)])
    excitement.begin(True)
    assert excitement.wants("conv")
    assert not excitement.wants("other")
    excitement.saw("conv", maps)
    responses = excitement.take()["conv", 1]
    assert responses.size == (4, 5)
    assert responses.numbers.tolist() == [[5, 7], [13, 15]]
    images, finds = batch(0, 2), TopImages()
    finds.add(0, responses.numbers.numpy(), images, lambda place: PixelBox(0, 0, place % 5 + 1, 2))
    assert [find.crop.shape for find in finds.best(0)] == [(3, 1, 2), (3, 4, 2)]
    assert [find.size for find in finds.best(0)] == [(12, 12)] * 2


def test_nothing_is_looked_at_when_nobody_inspects():
    excitement = ResponseRecorder()
    excitement.begin(True)
    assert not excitement.wants("conv")
    excitement.follow([("conv", 1)])
    excitement.begin(False)
    assert not excitement.wants("conv")


def test_a_filter_that_is_gone_and_an_empty_batch_are_passed_over():
    excitement = ResponseRecorder()
    excitement.follow([("conv", 9), ("empty", 0)])
    excitement.begin(True)
    excitement.saw("conv", torch.ones(2, 3, 4, 4))
    excitement.saw("empty", torch.ones(0, 3, 4, 4))
    assert excitement.take() == {}


def test_of_several_calls_in_a_batch_the_first_counts():
    excitement = ResponseRecorder()
    excitement.follow([("conv", 0)])
    excitement.begin(True)
    excitement.saw("conv", torch.ones(2, 1, 2, 2))
    excitement.saw("conv", 2 * torch.ones(2, 1, 2, 2))
    assert excitement.take()["conv", 0].numbers[0].tolist() == [1, 1]


def test_responses_that_are_not_finite_or_not_positive_excite_nothing():
    finds, images = TopImages(), batch(0, 6)
    add(finds, 0, [np.nan, np.inf, -np.inf, 0.0, -1.0, 2.0], images)
    assert [find.response for find in finds.best(0)] == [2.0]


def test_an_image_that_comes_again_in_another_epoch_is_shown_once():
    finds, images = TopImages(), batch(0, 2)
    add(finds, 0, [3.0, 2.0], images)
    add(finds, 50, [1.0, 4.0], images)
    assert [(find.response, find.step) for find in finds.best(50)] == [(4.0, 50), (1.0, 50)]


def test_what_was_found_long_ago_gives_way():
    finds = TopImages()
    add(finds, 0, [9.0], batch(0, 1))
    add(finds, 10, [2.0], batch(1, 1))
    assert len(finds.best(RECENT_BATCHES - 1)) == 2
    assert [find.step for find in finds.best(RECENT_BATCHES)] == [10]
    add(finds, RECENT_BATCHES + 20, [1.0], batch(2, 1))
    assert [find.response for find in finds.best(RECENT_BATCHES + 20)] == [1.0]


def test_pixels_are_only_read_of_images_that_are_among_the_strongest():
    class Counted:
        read = 0
        shape = (8, 3, 12, 12)

        def __getitem__(self, index: int) -> Tensor:
            Counted.read += 1
            return batch(Counted.read)[0]

    finds, images = TopImages(), Counted()
    add(finds, 0, list(range(20, 32)), images)
    assert Counted.read == MOST
    add(finds, 1, [1.0] * 8, images)
    assert Counted.read == MOST


def test_what_is_kept_is_bounded():
    finds, images = TopImages(), batch(0, 12, side=300)
    add(finds, 0, list(range(1, 13)), images)
    assert len(finds.best(0)) == MOST
    assert all(find.crop.shape == (3, LARGEST_CROP, LARGEST_CROP) for find in finds.best(0))


@pytest.mark.parametrize(("channels", "kept"), [(1, 1), (3, 3), (4, 1)])
def test_crops_are_grey_or_coloured_and_spread_over_all_levels(channels: int, kept: int):
    pixels = levels(batch(0, channels=channels)[0])
    assert pixels.shape == (kept, 12, 12)
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert not levels(torch.full((1, 4, 4), torch.nan)).any()
