"""Labels: which channels of the model the positions of a tensor belong to.

A tensor's labels are a list of int64 tensors, each broadcastable to the tensor's shape: the value
at a position is the channel (`channel_groups` defines the term) that this position belongs to. A
label of a (B, C, H, W) activation which says "channel c is filter c of conv1" has shape
(1, C, 1, 1).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = [
    "Label",
    "align_label",
    "compress_label",
    "count_runs",
    "is_cartesian_product",
    "label_along",
    "labeled_dims",
    "normalize_dims",
]

Label = Tensor  # int64, broadcastable to the shape of the tensor it labels


def labeled_dims(label: Label) -> frozenset[int]:
    """Return the dimensions along which channels differ: those of size > 1."""
    return frozenset([d for d, size in enumerate(label.shape) if size > 1])


def label_along(channels: Tensor, ndim: int, dim: int) -> Label:
    """Return the label of an ``ndim``-dimensional tensor with these 1-D channels along ``dim``."""
    if ndim == 1:
        return channels
    shape = [1] * ndim
    shape[dim] = -1
    return channels.reshape(shape)


def compress_label(label: Label) -> Label:
    """Return the label with every dimension along which it is constant reduced to size 1."""
    for d in range(label.ndim):
        if label.shape[d] > 1:
            first = label.narrow(d, 0, 1)
            if label.stride(d) == 0 or torch.equal(label, first.expand(label.shape)):
                label = first
    return label


def align_label(label: Label, ndim: int) -> Label:
    """Return the label with leading dimensions of size 1 added, as broadcasting does."""
    return label.reshape((1,) * (ndim - label.ndim) + tuple(label.shape))


def is_cartesian_product(a: Label, b: Label) -> bool:
    """Return whether two 1-D labels pair each channel of one with each channel of the other.

    Both labels must have several channels.
    """
    n_pairs = len(torch.stack([a, b]).unique(dim=1)[0])
    sizes = len(a.unique()), len(b.unique())
    return min(sizes) > 1 and n_pairs == sizes[0] * sizes[1]


def count_runs(label: Label) -> int:
    """Return how many runs of one channel a 1-D label has."""
    return int((label[1:] != label[:-1]).sum()) + 1


def normalize_dims(dims: object, ndim: int) -> list[int] | None:
    """Return the dimensions of an aten argument as non-negative ints; None or empty means all.

    Returns None for anything that is not a list of dimensions.
    """
    if dims is None or (isinstance(dims, (list, tuple)) and not dims):
        return list(range(ndim))
    if isinstance(dims, int) and not isinstance(dims, bool):
        return [dims % ndim]
    if isinstance(dims, Iterable) and not isinstance(dims, (str, Tensor)):
        return [int(d) % ndim for d in dims]
    return None
