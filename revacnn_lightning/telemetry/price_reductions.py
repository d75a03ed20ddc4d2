"""Reductions of activation maps and their gradients to the statistic ``price``."""

from __future__ import annotations

import torch
from torch import Tensor

from revacnn_lightning.telemetry.reductions import BLOCK, sum_per_image_and_channel

__all__ = ["estimate_removal_loss_changes", "sum_products_per_image"]


def sum_products_per_image(maps: Tensor, gradients: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the sum of a ∂L/∂a over the pixels of each image: twice (B, C, H, W) -> (B, C).

    It is in ``out`` if that is given.
    """
    if maps.device.type != "cpu" or maps.numel() <= BLOCK:
        return sum_per_image_and_channel(maps * gradients, out)
    step = max(1, BLOCK // (maps.numel() // len(maps)))
    scratch = torch.empty_like(maps[:step])
    sums = maps.new_empty(maps.shape[:2], dtype=torch.float32) if out is None else out
    for start in range(0, len(maps), step):
        block = maps[start : start + step]
        product = torch.mul(block, gradients[start : start + step], out=scratch[: len(block)])
        torch.sum(product, (2, 3), dtype=torch.float32, out=sums[start : start + step])
    return sums


def estimate_removal_loss_changes(products_per_image: Tensor) -> Tensor:
    """Return the estimated change of the loss if each filter was removed: (B, C) -> (C,).

    It is √(B Σ x²) over the images: the root mean square of B x.

    Args:
        products_per_image: what `sum_products_per_image` returned, x, (B, C).
    """
    # On a CPU, torch does not vectorize norms over the images: they take ten times as long.
    return products_per_image.square().sum(0).mul_(len(products_per_image)).sqrt_()
