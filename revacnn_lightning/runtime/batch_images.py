"""Finds the images in a batch of any nesting.

They are a tensor (B, channels, H, W), or one tensor (channels, H, W) per sample where images differ
in size: in a list, as in torchvision's detection references, or one in each element of a list of
samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.runtime.batch_nesting import (
    MAX_DEPTH,
    children_by_key,
    is_plain_list_or_tuple,
    leaves,
)

__all__ = ["Images", "ImagesOfBatch", "find_image", "find_image_or_other_input", "find_images"]

# (B, channels, H, W), or (channels, H, W) each; the same of signals (channels, L) or of volumes
Images = Tensor | Sequence[Tensor]
ImagesOfBatch = Callable[[Any], Images]

DIMENSIONS_OF_BATCH = (3, 4, 5)  # of signals, images, volumes
COLOR_CHANNELS = (3, 4)
MAX_COLOR_CHANNELS = 4
OTHER_DIMENSIONS = ((2, 4), (1,))  # signals (channels, length) and volumes, before features (n,)
MAX_FIELDS = 3  # a list of more tensors of the same shape is a list of samples


@dataclass(frozen=True)
class _Candidate:
    images: Images
    is_named: bool  # whether its key or attribute is named after images
    is_certain: bool  # whether its dimensions are those of images

    def is_batched(self) -> bool:
        return not isinstance(self.images, Tensor) or self.images.ndim == 4

    def rank(self) -> tuple[bool, ...]:
        return not self.is_batched(), not self.is_named, not self.is_certain


def find_images(batch: Any, get_images: ImagesOfBatch | None = None) -> Images | None:
    """Return the images of a batch, as the batch holds them.

    Without ``get_images``, they are the first tensor (B, channels, H, W) or list of tensors
    (channels, H, W), and those named after images come first; else the first floating-point tensor
    of at least three dimensions.

    Args:
        batch: tensors nested in containers (see `batch_nesting.children_by_key`).
        get_images: the user's function that returns the images of a batch, to be used instead.

    Raises:
        EditRefusedError: ``get_images`` raised an exception, or returned something else than
            images.
    """
    if get_images is not None:
        return _call_users_function(get_images, batch)
    found = sorted(_candidates(batch), key=_Candidate.rank)
    return found[0].images if found else None


def _call_users_function(get_images: ImagesOfBatch, batch: Any) -> Images:
    try:
        found = get_images(batch)
    except EditRefusedError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise EditRefusedError(
            f"the function of the option images=... raised {type(error).__name__}: {error}"
        ) from error
    if isinstance(found, Tensor):
        is_right = found.ndim in DIMENSIONS_OF_BATCH
    else:
        is_right = is_plain_list_or_tuple(found) and all(
            isinstance(image, Tensor) and image.ndim + 1 in DIMENSIONS_OF_BATCH for image in found
        )
    if not is_right:
        what = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise EditRefusedError(
            "the function of the option images=... must return a tensor (B, channels, H, W) or a "
            "list of tensors (channels, H, W), or signals (channels, L) or volumes in their place, "
            f"but returned {what}"
        )
    return found


def _candidates(node: Any, is_named: bool = False, depth: int = 0) -> Iterator[_Candidate]:
    if isinstance(node, Tensor):
        can_be = node.ndim == 4 or (node.ndim >= 3 and node.is_floating_point())
        if can_be and _is_pixels(node):
            yield _Candidate(node, is_named, _has_color(node, 1))
        return
    inner = children_by_key(node) if depth < MAX_DEPTH else None
    if inner is None:
        return
    images = _images_of_samples(node) if is_plain_list_or_tuple(node) else None
    if images is not None:
        yield _Candidate(images, is_named, _has_color(images[0], 0))
        return
    for key, value in inner.items():
        yield from _candidates(value, is_named or _names_images(key), depth + 1)


def _images_of_samples(samples: Sequence[Any]) -> Sequence[Tensor] | None:
    """Return one image (channels, H, W) of each sample; None if these are not samples."""
    if not samples:
        return None
    if all(isinstance(sample, Tensor) for sample in samples):
        return samples if _are_images(samples) else None
    if len({type(sample) for sample in samples}) > 1:
        return None
    images = [_image_in_sample(sample) for sample in samples]
    found = [image for image in images if image is not None]
    return found if len(found) == len(samples) and _are_images(found) else None


def find_image(sample: Any) -> Tensor | None:
    """Return the image (channels, H, W) of one sample of a dataset; None if it has none.

    It is the first tensor of three dimensions, and one named after images comes first.
    """
    found = sorted(_tensors_by_name(sample), key=lambda each: (not each[0], not each[1]))
    return next((tensor for _, _, tensor in found if tensor.ndim == 3), None)


def find_image_or_other_input(sample: Any) -> Tensor | None:
    """Return the input of one sample of a dataset: its image if it has one.

    Else it is the first floating-point tensor: a signal (channels, length), a volume (channels,
    depth, H, W), or, if there is neither, features (n,). None if there is none.
    """
    image = find_image(sample)
    if image is not None:
        return image
    others = [each for _, is_floating, each in _tensors_by_name(sample) if is_floating]
    found = (each for sizes in OTHER_DIMENSIONS for each in others if each.ndim in sizes)
    return next(found, None)


def _tensors_by_name(
    node: Any, is_named: bool = False, depth: int = 0
) -> Iterator[tuple[bool, bool, Tensor]]:
    """Yield (whether it is named after images, whether it is floating-point, tensor) of pixels."""
    if isinstance(node, Tensor) and _is_pixels(node):
        yield is_named, node.is_floating_point(), node
    inner = children_by_key(node) if depth < MAX_DEPTH else None
    for key, value in (inner or {}).items():
        yield from _tensors_by_name(value, is_named or _names_images(key), depth + 1)


def _image_in_sample(element: Any) -> Tensor | None:
    """Return the image of an element of a list; None if the element is a batch or a tensor."""
    if children_by_key(element) is None:
        return None
    if any(isinstance(leaf, Tensor) and leaf.ndim > 3 for leaf in leaves(element)):
        return None
    return find_image(element)


def _are_images(tensors: Sequence[Tensor]) -> bool:
    """Return whether these are images (channels, H, W), instead of batches (B, length, features).

    Images have few channels, or many of them are in a list, or their sizes differ.
    """
    if not all(tensor.ndim == 3 and _is_pixels(tensor) for tensor in tensors):
        return False
    channels = {tensor.shape[0] for tensor in tensors}
    sizes = {tensor.shape[1:] for tensor in tensors}
    is_likely = len(sizes) > 1 or len(tensors) > MAX_FIELDS or max(channels) <= MAX_COLOR_CHANNELS
    return len(channels) == 1 and is_likely


def _is_pixels(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.dtype == torch.uint8


def _has_color(tensor: Tensor, dim: int) -> bool:
    """Return whether a tensor is likely an image: floating-point, or bytes in color.

    Bytes with any other number of channels may be masks.
    """
    return tensor.is_floating_point() or tensor.shape[dim] in COLOR_CHANNELS


def _names_images(key: Any) -> bool:
    name = key.lower() if isinstance(key, str) else ""
    return "mask" not in name and any(word in name for word in ("image", "img", "pixel"))
