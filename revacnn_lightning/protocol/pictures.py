"""Pictures that a client sends as inputs of a network: from an array to `ShowPicture` requests."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.inspection_requests import (
    MAX_CHUNK_BYTES,
    MAX_PICTURE_SIDE,
    ShowPicture,
)

__all__ = ["new_image_index", "picture_requests", "to_rgb_pixels"]


def new_image_index() -> int:
    """Return a random index for an image that a client makes, which no other client uses."""
    return -1 - secrets.randbelow(2**31)


def to_rgb_pixels(picture: Any) -> np.ndarray:
    """Return a picture as uint8 (H, W, 3); one that is larger than 320×320 is downsampled.

    Args:
        picture: an array or what `numpy.asarray` makes one of, such as an image of Pillow: (H, W,
            3), (H, W, 4), whose opacity is dropped, or (H, W) of gray; uint8, or floating-point
            from 0 to 1.

    Raises:
        EditRefusedError: the shape, the type or a value is none of these.
    """
    pixels = np.asarray(picture)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or not pixels.size:
        raise EditRefusedError(
            f"a picture is an array (H, W, 3) or (H, W), not of shape {np.shape(picture)}; "
            "transpose one of (channels, H, W)"
        )
    if np.issubdtype(pixels.dtype, np.floating):
        if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
            raise EditRefusedError(
                "the values of a floating-point picture are from 0 to 1; scale them, or pass uint8"
            )
        pixels = pixels * 255
    elif pixels.dtype != np.uint8:
        raise EditRefusedError(
            f"the values of a picture are uint8 or floating-point from 0 to 1, not {pixels.dtype}"
        )
    small = _downsampled(pixels[..., :3].astype(np.float32))
    return np.round(small).astype(np.uint8)


def picture_requests(index: int, pixels: np.ndarray) -> list[ShowPicture]:
    """Return the requests that send a picture, uint8 (H, W, 3) of at most 320×320, in order."""
    height, width, _ = pixels.shape
    rows = MAX_CHUNK_BYTES // (3 * width)
    return [
        ShowPicture(index, (height, width), first, pixels[first : first + rows].tobytes())
        for first in range(0, height, rows)
    ]


def _downsampled(pixels: np.ndarray) -> np.ndarray:
    """Return a picture float (H, W, 3) whose pixels are means of those of a larger one."""
    factor = MAX_PICTURE_SIDE / max(pixels.shape[:2])
    for axis in (0, 1):
        size = pixels.shape[axis]
        count = max(1, round(size * factor))
        if factor < 1 and count < size:
            starts = np.arange(count) * size // count
            lengths = np.diff(np.append(starts, size)).reshape(
                [-1 if i == axis else 1 for i in range(3)]
            )
            pixels = np.add.reduceat(pixels, starts, axis=axis) / lengths
    return pixels
