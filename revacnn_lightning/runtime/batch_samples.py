"""The first samples of a batch of any nesting, as copies."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from revacnn_lightning.runtime.batch_images import Images, ImagesOfBatch, find_images
from revacnn_lightning.runtime.batch_nesting import (
    children_by_key,
    copy_if_possible,
    is_plain_list_or_tuple,
    leaves,
    with_children,
)

__all__ = [
    "batch_size",
    "find_images",
    "first_sample_with_image",
    "first_samples",
    "is_batch_empty",
]

log = logging.getLogger(__name__)


def batch_size(batch: Any, get_images: ImagesOfBatch | None = None) -> int:
    """Return the number of images of a batch, else the length of its first array, else 0."""
    found = find_images(batch, get_images)
    if found is not None:
        return len(found)
    return next((len(leaf) for leaf in leaves(batch) if _is_array(leaf)), 0)


def is_batch_empty(batch: Any, get_images: ImagesOfBatch | None = None) -> bool:
    """Return whether a batch has images or arrays, but no sample in them."""
    found = find_images(batch, get_images)
    if found is not None:
        return not len(found)
    return any(_is_array(leaf) for leaf in leaves(batch)) and not batch_size(batch)


def first_samples(batch: Any, count: int, get_images: ImagesOfBatch | None = None) -> Any:
    """Return a copy of a batch with its first ``count`` samples only.

    Nothing that the model does to the copy changes the batch. Cut are tensors and arrays whose
    first dimension is the batch's, and lists with one element per sample. In a batch of batches,
    as Lightning's ``CombinedLoader`` makes, each is cut on its own. A batch that holds sequences or
    graphs packed into one tensor is copied whole.

    Args:
        batch: tensors nested in containers (see `batch_nesting.children_by_key`).
        count: the number of samples.
        get_images: returns the images of a batch. None searches for them.
    """
    if any(_is_packed(leaf) for leaf in leaves(batch)):
        return _Cutter(batch, count, None).copy(batch, 0)
    found = find_images(batch, get_images)
    return _Cutter(batch, count, found).copy(batch, batch_size(batch, get_images))


def first_sample_with_image(
    batch: Any, image: Tensor, get_images: ImagesOfBatch | None = None
) -> Any:
    """Return a batch of one: a copy of the first sample of a batch, with another image.

    Gradients flow back to ``image``.

    Args:
        batch: tensors nested in containers (see `batch_nesting.children_by_key`).
        image: (1, channels, H, W).
        get_images: returns the images of a batch. None searches for them.

    Returns:
        None if the batch does not hold its images, for example because ``get_images`` computes
        them.
    """
    found = find_images(batch, get_images)
    if found is None or not len(found) or any(_is_packed(leaf) for leaf in leaves(batch)):
        return None
    old, new = (found, image) if isinstance(found, Tensor) else (found[0], image[0])
    cutter = _Cutter(batch, 1, found)
    is_replaced = cutter.replace(old, new.to(old) if old.is_floating_point() else new)
    return cutter.copy(batch, len(found)) if is_replaced else None


class _Cutter:
    """Copies a batch, cutting it. An object that is in the batch twice is one in the copy, too."""

    def __init__(self, batch: Any, count: int, images: Images | None) -> None:
        self._count = count
        self._has_image_list = images is not None and not isinstance(images, Tensor)
        listed = [] if images is None else [images] if isinstance(images, Tensor) else images
        self._image_ids = {id(leaf) for leaf in leaves(batch)} & {id(image) for image in listed}
        # The only image in a list is an element that holds all images, and one per sample.
        self._is_single_list = self._has_image_list and len(listed) == 1
        self._copies: dict[int, Any] = {}

    def replace(self, tensor: Tensor, new: Tensor) -> bool:
        """Put ``new`` in the place of a tensor; return whether the batch holds that."""
        self._copies[id(tensor)] = new
        return id(tensor) in self._image_ids

    def copy(self, node: Any, size: int) -> Any:
        """Return a copy of ``node``, cut where it has ``size`` samples; 0: it is not cut."""
        if id(node) not in self._copies:
            self._copies[id(node)] = node  # a container that contains itself
            self._copies[id(node)] = self._copy(node, size)
        return self._copies[id(node)]

    def _copy(self, node: Any, size: int) -> Any:
        if _is_array(node):
            return copy_if_possible(node[: self._count] if size and len(node) == size else node)
        inner = children_by_key(node)
        if inner is None:
            return copy_if_possible(node)
        if size and self._is_per_sample(node, size):
            values = {i: self.copy(inner[i], 0) for i in range(min(self._count, size))}
        else:
            sizes = _sizes_of_parts(inner, size)
            values = {key: self.copy(value, sizes[key]) for key, value in inner.items()}
        try:
            return with_children(node, values)
        except Exception:  # of the user's class
            log.info("Cannot cut a %s of the batch", type(node).__name__, exc_info=True)
            return copy_if_possible(node)

    def _is_per_sample(self, node: Any, size: int) -> bool:
        """Return whether a container has one element per sample."""
        if not is_plain_list_or_tuple(node) or len(node) != size:
            return False
        if any(self._holds_all_images(element) for element in node):
            return False
        batched = [_is_array(element) and len(element) == size for element in node]
        if self._has_image_list:
            return True
        # As many tensors as samples, each with all samples.
        return not (all(batched) if self._image_ids else any(batched))

    def _holds_all_images(self, element: Any) -> bool:
        found = self._image_ids & {id(leaf) for leaf in leaves(element)}
        return bool(found) and found == self._image_ids and not self._is_single_list


def _sizes_of_parts(inner: dict[Any, Any], size: int) -> dict[Any, int]:
    """Return the batch size of each part of a container of ``size`` samples.

    Only a part with images of its own, and not the images of all parts, has a size of its own.
    """
    sizes = dict.fromkeys(inner, size)
    images = find_images(inner) if size else None
    if images is None or any(part is images for part in inner.values()):
        return sizes
    for key, part in inner.items():
        own = None if children_by_key(part) is None else find_images(part)
        if own is not None and _are_of_a_batch(own, part, images):
            sizes[key] = len(own)
    return sizes


def _are_of_a_batch(own: Images, part: Any, images: Images) -> bool:
    """Return whether ``own`` images make a part a batch, as ``images`` make another part one."""
    if not len(own) or not len(images) or (isinstance(own, Tensor) and own.ndim != 4):
        return False
    arrays = [leaf for leaf in leaves(part) if _is_array(leaf) and leaf is not own]
    return own[0].shape == images[0].shape or any(len(array) == len(own) for array in arrays)


def _is_array(leaf: Any) -> bool:
    """Return whether a leaf can be cut along its first dimension."""
    return isinstance(leaf, (Tensor, np.ndarray)) and leaf.ndim > 0


def _is_packed(leaf: Any) -> bool:
    """Return whether a leaf holds several samples in one dimension."""
    if isinstance(leaf, Tensor):
        return leaf.is_nested or leaf.layout != torch.strided
    if isinstance(leaf, PackedSequence):
        return True
    return hasattr(type(leaf), "num_graphs") or hasattr(type(leaf), "num_nodes")  # PyG, DGL
