"""Reductions of activation maps and their gradients to the statistic ``price``."""

from __future__ import annotations

import torch
from torch import Tensor

from revacnn_lightning.telemetry.reductions import BLOCK, sum_per_image_and_channel

__all__ = ["estimate_removal_loss_changes", "sum_products_per_image"]


def sum_products_per_image(maps: Tensor, gradients: Tensor) -> Tensor:
    """Return the sum of a ∂L/∂a over the pixels of each image: twice (B, C, H, W) -> (B, C)."""
    if maps.device.type != "cpu" or maps.numel() <= BLOCK:
        return sum_per_image_and_channel(maps * gradients)
    step = max(1, BLOCK // (maps.numel() // len(maps)))
    scratch = torch.empty_like(maps[:step])
    sums = maps.new_empty(maps.shape[:2], dtype=torch.float32)
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
    return torch.linalg.vector_norm(products_per_image, 2, 0) * len(products_per_image) ** 0.5
