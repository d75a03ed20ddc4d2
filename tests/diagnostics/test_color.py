from __future__ import annotations

import numpy as np
import pytest

from revacnn_lightning.diagnostics.color import find_single_color_filters

SIDES = np.linspace(-1, 1, 7)
X, Y = np.meshgrid(SIDES, SIDES)
EDGE = np.sin(4 * X)  # (7, 7)
ORANGE = np.array([1.0, 0.5, -0.6])
GRAY = np.ones(3)


def reference(kernel: np.ndarray, min_share: float) -> bool:
    """Handle one kernel (h, w, 3), pixel by pixel and channel by channel."""
    height, width, _ = kernel.shape
    total = sum(float(v) ** 2 for v in kernel.ravel())
    mean = [sum(kernel[y, x, c] for y in range(height) for x in range(width)) / (height * width)
            for c in range(3)]  # fmt: skip
    constant = sum(height * width * m**2 for m in mean) if height * width > 1 else 0.0
    channel = max(sum(float(v) ** 2 for v in kernel[..., c].ravel()) for c in range(3))
    return total > 0 and max(constant, channel) >= min_share * total


def test_constant_kernel_is_single_color() -> None:
    flat = np.ones((7, 7, 1)) * ORANGE

    assert find_single_color_filters(flat[None]).tolist() == [True]
    assert find_single_color_filters((flat + 0.2 * EDGE[..., None])[None]).tolist() == [True]


def test_gray_and_colored_edges_are_not_single_color() -> None:
    kernels = np.stack([EDGE[..., None] * GRAY, EDGE[..., None] * ORANGE])

    assert not find_single_color_filters(kernels).any()


def test_single_channel_kernel_is_single_color() -> None:
    kernels = np.zeros((3, 7, 7, 3))
    kernels[0, ..., 0], kernels[1, ..., 1], kernels[2, ..., 2] = EDGE, -EDGE, EDGE.T

    assert find_single_color_filters(kernels).all()


@pytest.mark.parametrize("min_share", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 5)])
def test_matches_reference(shape: tuple[int, int], min_share: float) -> None:
    kernels = np.random.default_rng(4).normal(size=(60, *shape, 3))
    kernels += 2 * np.random.default_rng(5).normal(size=(60, 1, 1, 3))

    expected = [reference(kernel, min_share) for kernel in kernels]

    assert find_single_color_filters(kernels, min_share).tolist() == expected
    assert sum(expected) > 0


def test_dead_and_nonfinite_filters_are_not_single_color() -> None:
    kernels = np.ones((5, 3, 3, 3))
    kernels[1], kernels[2, 0, 0, 0], kernels[3, 1, 1, 2] = 0, np.nan, np.inf

    assert find_single_color_filters(kernels).tolist() == [True, False, False, False, True]


@pytest.mark.parametrize("scale", [1e-150, 1e-30, 1e30, 1e150])
def test_result_does_not_depend_on_scale(scale: float) -> None:
    assert find_single_color_filters(scale * np.ones((2, 3, 3, 3))).all()


@pytest.mark.parametrize("shape", [(0,), (0, 3, 3, 3), (4, 3, 3), (4, 3, 3, 2), (4, 0, 3, 3)])
def test_kernels_without_rgb_input_are_not_single_color(shape: tuple[int, ...]) -> None:
    assert find_single_color_filters(np.ones(shape)).tolist() == [False] * shape[0]
