from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from revacnn_lightning.telemetry.conv import Conv
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


def slices_of(conv: Conv, weight: np.ndarray, out: int) -> list[np.ndarray]:
    """Return the kernel slices (h, w) of one filter, one per input channel."""
    width = conv.out_channels // conv.groups
    if not isinstance(conv, nn.ConvTranspose2d):
        return list(weight[out])
    group, inputs = out // width, conv.in_channels // conv.groups
    return [weight[group * inputs + k, out % width] for k in range(inputs)]


def reference(conv: Conv, mean: bool) -> np.ndarray:
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
def test_three_inputs_are_rgb(conv: Conv, mean: bool):
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
