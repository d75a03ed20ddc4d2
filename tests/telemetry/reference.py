"""Reference implementation of the statistics: slow, one filter at a time, in double precision."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


def coefficients(weight: Tensor, conv: nn.Conv2d | nn.ConvTranspose2d, index: int) -> Tensor:
    """Return the coefficients of one filter, in any order."""
    if isinstance(conv, nn.ConvTranspose2d):
        outputs = conv.out_channels // conv.groups
        inputs = conv.in_channels // conv.groups
        group, position = divmod(index, outputs)
        return weight[group * inputs : (group + 1) * inputs, position]
    return weight[index]


def mean_absolute_coefficient(weight: Tensor, conv: nn.Conv2d | nn.ConvTranspose2d) -> np.ndarray:
    """Return the mean of |w| over the coefficients; of a gradient, the statistic ``gradient``."""
    return np.array(
        [
            coefficients(weight, conv, i).double().abs().mean().item()
            for i in range(conv.out_channels)
        ]
    )


def norm(weight: Tensor, conv: nn.Conv2d | nn.ConvTranspose2d) -> np.ndarray:
    """Return ‖w‖₂ of each filter."""
    return np.array(
        [
            coefficients(weight, conv, i).double().square().sum().sqrt().item()
            for i in range(conv.out_channels)
        ]
    )


def pixel_sum(maps: Tensor) -> np.ndarray:
    """Return the sum over the pixels of each map, averaged over the images."""
    return np.array(
        [np.mean([image[i].double().sum().item() for image in maps]) for i in range(maps.shape[1])]
    )


def train_step(model: nn.Module, images: Tensor) -> Tensor:
    """Run a forward and a backward pass of a loss that depends differently on every output."""
    output = model(images)
    weights = torch.linspace(-1, 1, output.numel()).view_as(output)
    loss = (output * weights).sum() + output.square().mean()
    loss.backward()
    return loss.detach()
