from __future__ import annotations

import numpy as np
import pytest

from viewer.rendering.thumbnails import (
    MAX_SIZE,
    _downsample,
    attribution_tile,
    build_tiles,
    image_tile,
)


def test_signed_values_are_centered_on_128() -> None:
    images = np.array([[[-2.0, 0.0], [1.0, 2.0]], [[0.0, 0.0], [0.0, 5e-4]]])

    levels = build_tiles(images, signed=True)

    assert levels.dtype == np.uint8
    np.testing.assert_array_equal(levels[0], [[1, 128], [192, 255]])
    np.testing.assert_array_equal(levels[1], [[128, 128], [128, 255]])


def test_unsigned_values_start_at_zero_and_weak_maps_stay_dim() -> None:
    images = np.zeros((3, 2, 2))
    images[0, 0, 0], images[1, 0, 0], images[2, 1, 1] = 10.0, 5.0, 0.1

    levels = build_tiles(images, signed=False)

    assert levels[0, 0, 0] == levels[1, 0, 0] == 255
    assert 0 < levels[2].max() < 40
    assert levels.min() == 0


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nonfinite_values_are_zero(signed: bool, value: float) -> None:
    images = np.ones((2, 3, 3))
    images[0, 1, 1] = value

    levels = build_tiles(images, signed=signed)

    assert levels[0, 1, 1] == (128 if signed else 0)
    assert levels[1, 1, 1] == 255


def test_color_channels_are_kept() -> None:
    images = np.zeros((1, 5, 4, 3))
    images[..., 0] = 1

    assert build_tiles(images, signed=True).shape == (1, 5, 4, 3)
    assert (build_tiles(images, signed=True)[..., 0] == 255).all()


@pytest.mark.parametrize("size", [(56, 56), (33, 7), (224, 112)])
def test_large_maps_are_downsampled(size: tuple[int, int]) -> None:
    images = np.random.default_rng(0).random((2, *size))

    levels = build_tiles(images, signed=False)

    assert max(levels.shape[1:]) <= MAX_SIZE
    flat = build_tiles(np.ones((1, *size)), signed=False)
    assert (flat == 255).all()


def test_empty_images() -> None:
    assert build_tiles(np.zeros((0,), np.float32), signed=True).shape == (0, 1, 1)
    assert image_tile(np.zeros((0,), np.float32)).shape == (0, 1, 1, 3)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_input_image_is_scaled_to_its_range(channels: int) -> None:
    image = np.linspace(-3, 5, channels * 6 * 4).reshape(channels, 6, 4)

    tile = image_tile(image)

    assert tile.shape == (1, 6, 4, 3)
    assert tile.min() == 0
    assert tile.max() == 255


@pytest.mark.parametrize("shape", [(2, 64, 64), (3, 70, 33), (2, 33, 40, 3)])
def test_downsampling_averages_blocks(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)

    downsampled = _downsample(images)

    assert max(downsampled.shape[1:3]) <= MAX_SIZE
    block = -(-max(shape[1:3]) // MAX_SIZE)
    for row, column in ((0, 0), (5, 7), (shape[1] // block - 1, shape[2] // block - 1)):
        part = images[:, row * block : (row + 1) * block, column * block : (column + 1) * block]
        np.testing.assert_allclose(downsampled[:, row, column], part.mean(axis=(1, 2)), atol=1e-6)


@pytest.mark.parametrize(("channels", "shape"), [(1, (1, 4, 5)), (3, (1, 4, 5, 3)), (6, (1, 4, 5))])
def test_attribution_tile_is_centered_around_zero(channels: int, shape: tuple[int, ...]) -> None:
    values = np.zeros((channels, 4, 5), np.float16)
    values[:, 1, 2], values[:, 0, 0] = -2.0, 1.0
    levels = attribution_tile(values)
    assert levels.shape == shape
    assert levels.reshape(4, 5, -1)[1, 2, 0] == 1
    assert levels.reshape(4, 5, -1)[3, 3, 0] == 128
    assert (attribution_tile(0 * values) == 128).all()
    assert len(attribution_tile(np.zeros(0))) == 0


def test_a_row_of_values_is_a_strip() -> None:
    rows = np.linspace(-1, 1, 64).reshape(2, 1, 32)
    tiles = build_tiles(rows, signed=True)
    assert tiles.shape == (2, 8, 32)
    assert (tiles == tiles[:, :1]).all()
    assert build_tiles(np.ones((2, 1, 3)), signed=False).shape == (2, 1, 3)
    assert image_tile(np.zeros((1, 1, 100))).shape == (1, 25, 100, 3)


def test_the_input_of_a_signal_was_a_line_of_two_pixels() -> None:
    signal = np.stack([np.linspace(-1, 1, 256), np.zeros(256)])[None]
    tile = image_tile(signal)
    assert tile.shape == (1, 64, 256, 3)
    assert (tile[:, :32] == tile[:, :1]).all()
    assert (tile[:, 32:] == tile[:, -1:]).all()
    assert image_tile(np.zeros((3, 32, 400))).shape == (1, 32, 400, 3)  # an image of a line of text


@pytest.mark.parametrize("signed", [True, False])
def test_single_values_are_compared_with_the_largest_of_all(signed: bool) -> None:
    tiles = build_tiles(np.array([1.0, 0.5, 0.0]).reshape(3, 1, 1), signed=signed)
    middle = 128 if signed else 0
    assert tiles.ravel().tolist() == [255, round(middle + (255 - middle) / 2), middle]
