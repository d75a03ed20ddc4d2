"""Pictures of filters, gradients and maps as bytes: one atlas array per view.

Atlases hold levels, not colours: the page colours them in its theme. Signed values are spread
around 128, maps begin at 0; three input channels are kept as red, green and blue.
"""

from __future__ import annotations

import numpy as np

__all__ = ["attribution_tile", "build_atlas", "image_tile"]

MOST_PIXELS = 32  # on the longer side of a thumbnail
FAINTEST = 0.12  # of the layer's largest value: a map whose own largest is less stays dim


def build_atlas(images: np.ndarray, *, signed: bool) -> np.ndarray:
    """Levels (n, h, w) or (n, h, w, 3), uint8, of ``images`` of that shape.

    Each image is spread over all levels by itself. What is not finite becomes the middle, or 0.
    """
    values = np.asarray(images, np.float32)
    if values.ndim not in (3, 4) or values.size == 0:
        return np.zeros((0, 1, 1), np.uint8)
    if not np.isfinite(values.sum()):  # nearly never
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    values = _shrink(values)
    axes = tuple(range(1, values.ndim))
    highest, lowest = (of(axis=axes, keepdims=True) for of in (values.max, values.min))
    largest = np.maximum(highest, -lowest)
    if signed:
        levels = values / np.where(largest > 0, largest, 1)
        levels *= 127
        levels += 128
    else:
        floor = FAINTEST * float(largest.max())
        levels = values / np.maximum(largest, floor if floor > 0 else 1.0)
        np.maximum(levels, 0, out=levels)
        levels *= 255
    return np.rint(levels, out=levels).astype(np.uint8)


def image_tile(image: np.ndarray) -> np.ndarray:
    """The input image (channels, H, W), scaled to its own range, as one RGB tile (1, H, W, 3)."""
    values = np.nan_to_num(np.asarray(image, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    if values.ndim != 3 or values.size == 0:
        return np.zeros((0, 1, 1, 3), np.uint8)
    if len(values) != 3:
        values = np.repeat(values.mean(axis=0, keepdims=True), 3, axis=0)
    low, high = float(values.min()), float(values.max())
    levels = (values - low) / (high - low if high > low else 1.0)
    return np.rint(255 * levels).astype(np.uint8).transpose(1, 2, 0)[None]


def attribution_tile(values: np.ndarray) -> np.ndarray:
    """What pixels (channels, h, w) contribute, as one tile spread around the middle.

    Three channels as red, green and blue, (1, h, w, 3); otherwise levels of their mean, (1, h, w).
    """
    values = np.nan_to_num(np.asarray(values, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    if values.ndim != 3 or values.size == 0:
        return np.zeros((0, 1, 1), np.uint8)
    if len(values) != 3:
        values = values.mean(axis=0, keepdims=True)
    largest = float(np.abs(values).max())
    levels = np.rint(128 + 127 * values / (largest or 1.0)).astype(np.uint8)
    return levels.transpose(1, 2, 0)[None] if len(levels) == 3 else levels


def _shrink(images: np.ndarray) -> np.ndarray:
    """``images`` (n, h, w, ...) as means of blocks, `MOST_PIXELS` at most on the longer side."""
    h, w = images.shape[1:3]
    block = -(-max(h, w) // MOST_PIXELS)
    if block == 1:
        return images
    rows, columns = -(-h // block), -(-w // block)
    pad = [(0, 0), (0, rows * block - h), (0, columns * block - w)]
    padded = np.pad(images, pad + [(0, 0)] * (images.ndim - 3), mode="edge")
    # Much faster than a mean over two axes at once.
    of_rows = np.add.reduce([padded[:, k::block] for k in range(block)])
    total = np.add.reduce([of_rows[:, :, k::block] for k in range(block)])
    means: np.ndarray = total / np.float32(block**2)
    return means
