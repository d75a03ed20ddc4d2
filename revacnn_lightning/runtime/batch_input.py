"""The first sample of a batch of any kind, and its encoding in messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from revacnn_lightning.runtime.batch_images import Images
from revacnn_lightning.runtime.batch_nesting import leaves
from revacnn_lightning.telemetry.inspection.half_precision import normalized_half

__all__ = ["channel_l1_norms", "encode_downsampled_input", "first_input"]

MAX_SIDE = 96  # pixels of an image; larger ones are downsampled
MAX_LENGTH = 512  # values of a signal; longer ones are downsampled
MAX_CHANNELS = 512  # whose sums are sent


def first_input(batch: Any, images: Images | None) -> Tensor | None:
    """Return the first sample of a batch without the batch's dimension; None if there is none.

    Args:
        batch: tensors nested in containers (see `batch_nesting.children_by_key`).
        images: what `find_images` has found in the batch. None if it has found nothing: then the
            first tensor (B, features) is the input.
    """
    if images is None:
        tensors = (leaf for leaf in leaves(batch) if isinstance(leaf, Tensor))
        images = next((each for each in tensors if each.ndim == 2 and _is_numbers(each)), None)
    return None if images is None or not len(images) or not images[0].numel() else images[0]


def _is_numbers(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and tensor.is_floating_point() and not tensor.is_nested


def channel_l1_norms(values: Tensor) -> list[float]:
    """Return the L1 norm of each of the first 512 channels of an input (channels, ...)."""
    rows = values.detach()[:MAX_CHANNELS].float().abs()
    return [float(each) for each in rows.flatten(1).sum(1).cpu()] if values.ndim > 1 else []


def encode_downsampled_input(values: Tensor) -> np.ndarray:
    """Return an input as messages hold it: downsampled, float16 of magnitude at most 1.

    Args:
        values: an image (channels, H, W), a signal (channels, length), features (n,), or a volume
            (channels, depth, H, W), whose middle slice is sent.
    """
    values = values.detach().float()
    if values.ndim > 4:
        values = values.flatten(1, values.ndim - 4)
    if values.ndim == 4:
        values = values[:, values.shape[1] // 2]
    if values.ndim == 3 and max(values.shape[1:]) > MAX_SIDE:
        height, width = values.shape[1:]
        scale = MAX_SIDE / max(height, width)
        size = max(1, round(height * scale)), max(1, round(width * scale))
        values = nn.functional.adaptive_avg_pool2d(values, size)
    if values.ndim < 3 and values.shape[-1] > MAX_LENGTH:
        # Every so-many-th value: a mean would cancel out an oscillation.
        step = -(-values.shape[-1] // MAX_LENGTH)
        values = values[..., ::step]
    return normalized_half(values[:MAX_CHANNELS])
