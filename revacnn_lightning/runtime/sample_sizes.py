"""The tensors and the sizes of a recorded step, on fewer samples than the step had."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from revacnn_lightning.runtime.nested import map_leaves

__all__ = ["count_stacked_batches", "replace_sample_counts", "take_first_samples"]

MAX_BATCHES = 4


def take_first_samples(tensor: Tensor, batch_size: int, sample_count: int) -> Tensor:
    """Return a copy of the first ``sample_count`` samples of a tensor, of each batch in it."""
    tensor = tensor.detach()
    batches = count_stacked_batches(tensor.shape, batch_size)
    if not batches or sample_count >= batch_size:
        return tensor.clone()
    return tensor.unflatten(0, (batches, batch_size))[:, :sample_count].flatten(0, 1).clone()


def count_stacked_batches(shape: torch.Size, batch_size: int) -> int:
    """Return how many batches a tensor of this shape holds one after the other; 0 if none.

    Two views of each image are often concatenated. A larger multiple is rather a coincidence.
    """
    if not shape or not batch_size or shape[0] % batch_size:
        return 0
    batches = shape[0] // batch_size
    return batches if batches <= MAX_BATCHES else 0


def replace_sample_counts(arguments: Any, batch_size: int, sample_count: int) -> Any:
    """Return the arguments with each integer that counts samples replaced; None if there is none.

    An integer counts samples if it is a multiple of ``batch_size``. ``batch_size`` becomes
    ``sample_count`` in it.
    """
    found = False

    def map_size(leaf: Any) -> Any:
        nonlocal found
        if isinstance(leaf, torch.Size):
            return tuple(map_size(each) for each in leaf)
        counts = type(leaf) is int and leaf > 0 and leaf % batch_size == 0
        found = found or counts
        return leaf // batch_size * sample_count if counts else leaf

    mapped = map_leaves(arguments, map_size) if 0 < sample_count < batch_size else None
    return mapped if found else None
