from __future__ import annotations

import numpy as np
import pytest

from revacnn_lightning.diagnostics.colour import find_single_color

SIDES = np.linspace(-1, 1, 7)
X, Y = np.meshgrid(SIDES, SIDES)
EDGE = np.sin(4 * X)  # (7, 7)
ORANGE = np.array([1.0, 0.5, -0.6])
GREY = np.ones(3)


def obvious(kernel: np.ndarray, part: float) -> bool:
    """Of one kernel (h, w, 3), pixel by pixel and channel by channel."""
    height, width, _ = kernel.shape
    whole = sum(float(v) ** 2 for v in kernel.ravel())
    mean = [sum(kernel[y, x, c] for y in range(height) for x in range(width)) / (height * width)
            for c in range(3)]  # fmt: skip
    flat = sum(height * width * m**2 for m in mean) if height * width > 1 else 0.0
    channel = max(sum(float(v) ** 2 for v in kernel[..., c].ravel()) for c in range(3))
    return whole > 0 and max(flat, channel) >= part * whole


def test_a_colour_without_an_edge_is_single() -> None:
    flat = np.ones((7, 7, 1)) * ORANGE

    assert find_single_color(flat[None]).tolist() == [True]
    assert find_single_color((flat + 0.2 * EDGE[..., None])[None]).tolist() == [True]


def test_an_edge_is_not_whether_grey_or_coloured() -> None:
    kernels = np.stack([EDGE[..., None] * GREY, EDGE[..., None] * ORANGE])

    assert not find_single_color(kernels).any()


def test_a_filter_of_one_channel_is_single_whatever_its_shape() -> None:
    kernels = np.zeros((3, 7, 7, 3))
    kernels[0, ..., 0], kernels[1, ..., 1], kernels[2, ..., 2] = EDGE, -EDGE, EDGE.T

    assert find_single_color(kernels).all()


@pytest.mark.parametrize("part", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 5)])
def test_as_the_obvious_way_finds(shape: tuple[int, int], part: float) -> None:
    kernels = np.random.default_rng(4).normal(size=(60, *shape, 3))
    kernels += 2 * np.random.default_rng(5).normal(size=(60, 1, 1, 3))

    expected = [obvious(kernel, part) for kernel in kernels]

    assert find_single_color(kernels, part).tolist() == expected
    assert sum(expected) > 0


def test_dead_and_broken_filters_have_no_colour() -> None:
    kernels = np.ones((5, 3, 3, 3))
    kernels[1], kernels[2, 0, 0, 0], kernels[3, 1, 1, 2] = 0, np.nan, np.inf

    assert find_single_color(kernels).tolist() == [True, False, False, False, True]


@pytest.mark.parametrize("scale", [1e-150, 1e-30, 1e30, 1e150])
def test_scale_does_not_count(scale: float) -> None:
    assert find_single_color(scale * np.ones((2, 3, 3, 3))).all()


@pytest.mark.parametrize("shape", [(0,), (0, 3, 3, 3), (4, 3, 3), (4, 3, 3, 2), (4, 0, 3, 3)])
def test_what_is_not_of_three_channels_has_none(shape: tuple[int, ...]) -> None:
    assert find_single_color(np.ones(shape)).tolist() == [False] * shape[0]
