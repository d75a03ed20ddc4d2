from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from revacnn_lightning.telemetry.inspection.filter_images import filter_images

CONVS = {
    "plain": nn.Conv2d(6, 4, 3),
    "one input": nn.Conv2d(1, 4, 5),
    "1x1": nn.Conv2d(5, 4, 1),
    "oblong": nn.Conv2d(5, 4, (1, 3)),
    "grouped": nn.Conv2d(8, 6, 3, groups=2),
    "depthwise": nn.Conv2d(4, 4, 3, groups=4),
    "transposed": nn.ConvTranspose2d(5, 4, 2),
    "transposed in groups": nn.ConvTranspose2d(8, 6, 2, groups=2),
}


def slices_of(
    conv: nn.Conv2d | nn.ConvTranspose2d, weight: np.ndarray, out: int
) -> list[np.ndarray]:
    """Return the kernel slices (h, w) of one filter, one per input channel."""
    width = conv.out_channels // conv.groups
    if not isinstance(conv, nn.ConvTranspose2d):
        return list(weight[out])
    group, inputs = out // width, conv.in_channels // conv.groups
    return [weight[group * inputs + k, out % width] for k in range(inputs)]


def reference(conv: nn.Conv2d | nn.ConvTranspose2d, mean: bool) -> np.ndarray:
    """Return the images one filter at a time."""
    images = []
    weight = conv.weight.detach().numpy()
    for out in range(conv.out_channels):
        slices = slices_of(conv, weight, out)
        strongest = max(slices, key=lambda one: float((one**2).sum()))
        images.append(sum(slices) / len(slices) if mean else strongest)
    return np.stack(images) / np.abs(images).max()


@pytest.mark.parametrize("mean", [False, True], ids=["strongest", "mean"])
@pytest.mark.parametrize("kind", CONVS)
def test_strongest_slice_or_mean(kind: str, mean: bool):
    conv = CONVS[kind]
    images = filter_images(conv.weight.detach(), conv, mean=mean)
    assert images.dtype == np.float16
    np.testing.assert_allclose(images, reference(conv, mean), atol=1e-3)


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("conv", [nn.Conv2d(3, 4, 5), nn.ConvTranspose2d(3, 4, 5)], ids=type)
def test_three_inputs_are_rgb(conv: nn.Conv2d | nn.ConvTranspose2d, mean: bool):
    images = filter_images(conv.weight.detach(), conv, mean=mean)
    assert images.shape == (4, 5, 5, 3)
    colors = np.stack([slices_of(conv, conv.weight.detach().numpy(), k) for k in range(4)])
    np.testing.assert_allclose(
        images, colors.transpose(0, 2, 3, 1) / np.abs(colors).max(), atol=1e-3
    )


def test_strongest_slice_may_be_negative():
    conv = nn.Conv2d(6, 2, 3)
    with torch.no_grad():
        conv.weight[0, 4] = 5.0
        conv.weight[1, 2] = -5.0
    np.testing.assert_allclose(
        filter_images(conv.weight.detach(), conv), [np.ones((3, 3)), -np.ones((3, 3))]
    )


@pytest.mark.parametrize("mean", [False, True])
def test_dead_layer_gives_zeros(mean: bool):
    conv = nn.Conv2d(6, 2, 3)
    nn.init.zeros_(conv.weight)
    assert not filter_images(conv.weight.detach(), conv, mean=mean).any()


def test_nonfinite_filter_does_not_affect_others():
    conv = nn.Conv2d(6, 3, 3)
    with torch.no_grad():
        conv.weight[1, 2, 0, 0] = torch.nan
        conv.weight[2, 3, 1, 1] = torch.inf
    images = filter_images(conv.weight.detach(), conv)
    assert np.isfinite(images[0]).all()
    assert images[0].any()


def test_a_kernel_of_one_dimension_is_one_row():
    conv = nn.Conv1d(3, 4, 5)  # three inputs of a signal are no colors
    images = filter_images(conv.weight.detach(), conv)
    assert images.shape == (4, 1, 5)
    weight = conv.weight.detach()
    strongest = weight[torch.arange(4), weight.square().sum(2).argmax(1)]
    np.testing.assert_allclose(images[:, 0], strongest / strongest.abs().max(), atol=1e-3)


@pytest.mark.parametrize(("depth", "index"), [(0.0, 0), (0.5, 2), (1.0, 4)])
def test_of_a_kernel_of_three_dimensions_one_slice_is_shown(depth: float, index: int):
    conv = nn.Conv3d(1, 4, (5, 3, 2))
    images = filter_images(conv.weight.detach(), conv, depth=depth)
    expected = conv.weight.detach()[:, 0, index]
    np.testing.assert_allclose(images, expected / expected.abs().max(), atol=1e-3)


def test_a_slice_of_three_inputs_is_rgb():
    conv = nn.ConvTranspose3d(3, 4, 3)
    assert filter_images(conv.weight.detach(), conv).shape == (4, 3, 3, 3)


def test_filters_of_a_linear_layer_are_images_of_its_input():
    gray, color, maps = nn.Linear(20, 6), nn.Linear(60, 6), nn.Linear(100, 6)
    shown = filter_images(gray.weight.detach(), gray, input_shape=(1, 4, 5))
    expected = gray.weight.detach().view(6, 4, 5)
    np.testing.assert_allclose(shown, expected / expected.abs().max(), atol=1e-3)
    assert filter_images(color.weight.detach(), color, input_shape=(3, 4, 5)).shape == (6, 4, 5, 3)
    strongest = filter_images(maps.weight.detach(), maps, input_shape=(5, 4, 5))
    planes = maps.weight.detach().view(6, 5, 4, 5)
    chosen = planes[torch.arange(6), planes.square().sum((2, 3)).argmax(1)]
    np.testing.assert_allclose(strongest, chosen / chosen.abs().max(), atol=1e-3)


def test_filters_of_a_linear_layer_that_reads_a_signal_have_a_row_per_channel():
    linear = nn.Linear(3 * 8, 6)
    images = filter_images(linear.weight.detach(), linear, input_shape=(3, 8))
    expected = linear.weight.detach().view(6, 3, 8)
    np.testing.assert_allclose(images, expected / expected.abs().max(), atol=1e-3)


def test_of_a_linear_layer_that_reads_a_volume_one_slice_is_shown():
    linear = nn.Linear(5 * 4 * 3, 6)
    images = filter_images(linear.weight.detach(), linear, input_shape=(1, 5, 4, 3))
    expected = linear.weight.detach().view(6, 5, 4, 3)[:, 2]
    np.testing.assert_allclose(images, expected / expected.abs().max(), atol=1e-3)


@pytest.mark.parametrize(
    ("features", "input_shape", "shape"),
    [(7, (), (6, 1, 7)), (70, (), (6, 6, 12)), (64, (1, 4, 5), (6, 6, 12)), (1, (), (6, 1, 1))],
)
def test_filters_of_a_linear_layer_without_an_image_are_rows(features, input_shape, shape):
    linear = nn.Linear(features, 6)
    images = filter_images(linear.weight.detach(), linear, input_shape=input_shape)
    assert images.shape == shape
    row = linear.weight.detach()[0] / linear.weight.detach().abs().max()
    np.testing.assert_allclose(images[0].reshape(-1)[:features], row, atol=1e-3)


def test_filters_of_a_wide_linear_layer_are_downsampled():
    linear = nn.Linear(64 * 64, 8192, device="meta")
    weight = torch.zeros(1).expand(8192, 64 * 64)
    assert filter_images(weight, linear, input_shape=(1, 64, 64)).shape == (8192, 8, 8)
