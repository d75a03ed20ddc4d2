"""Images of filters, gradients and activation maps as bytes.

Tiles hold levels, not colors: the page colors them in its theme. Signed values are centered on
128, others start at 0. Three input channels are kept as red, green and blue.
"""

from __future__ import annotations

import numpy as np

__all__ = ["attribution_tile", "build_tiles", "image_tile"]

MAX_SIZE = 32  # pixels of the longer side
STRIP_RATIO = 4  # a row of values is drawn as a strip, this many times as long as it is high
FEW_ROWS = 8  # an input of fewer, long rows is a signal, and is drawn as a strip, too
MIN_RELATIVE_RANGE = 0.12  # of the layer's maximum: weaker activation maps remain dim


def build_tiles(images: np.ndarray, *, signed: bool) -> np.ndarray:
    """Return one tile per image, uint8 (n, h, w) or (n, h, w, 3).

    Each image is scaled to its own maximum, single values to that of all. A row of values, as of a
    sequence, becomes a strip. Values that are not finite are treated as zero.

    Args:
        images: (n, H, W) or (n, H, W, 3).
        signed: whether zero is the middle of the range.
    """
    values = np.asarray(images, np.float32)
    if values.ndim not in (3, 4) or values.size == 0:
        return np.zeros((0, 1, 1), np.uint8)
    if not np.isfinite(values.sum()):  # rare
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    values = _downsample(values)
    axes = tuple(range(1, values.ndim))
    highest, lowest = values.max(axis=axes, keepdims=True), values.min(axis=axes, keepdims=True)
    largest = np.maximum(highest, -lowest)
    if values.shape[1:3] == (1, 1):
        largest = np.full_like(largest, largest.max())
    if signed:
        levels = values / np.where(largest > 0, largest, 1)
        levels *= 127
        levels += 128
    else:
        floor = MIN_RELATIVE_RANGE * float(largest.max())
        levels = values / np.maximum(largest, floor if floor > 0 else 1.0)
        np.maximum(levels, 0, out=levels)
        levels *= 255
    return _as_strips(np.rint(levels, out=levels).astype(np.uint8))


def image_tile(image: np.ndarray) -> np.ndarray:
    """Return an input image (channels, H, W) scaled to its own range, uint8 (1, H, W, 3)."""
    values = np.nan_to_num(np.asarray(image, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    if values.ndim != 3 or values.size == 0:
        return np.zeros((0, 1, 1, 3), np.uint8)
    if len(values) != 3:
        values = np.repeat(values.mean(axis=0, keepdims=True), 3, axis=0)
    low, high = float(values.min()), float(values.max())
    levels = (values - low) / (high - low if high > low else 1.0)
    tile = np.rint(255 * levels).astype(np.uint8).transpose(1, 2, 0)[None]
    return _as_strips(tile, max_rows=FEW_ROWS - 1)


def attribution_tile(values: np.ndarray) -> np.ndarray:
    """Return the attribution of pixels (channels, h, w) as a tile centered on 128.

    Three channels become red, green and blue, uint8 (1, h, w, 3). Other numbers of channels are
    averaged, uint8 (1, h, w).
    """
    values = np.nan_to_num(np.asarray(values, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    if values.ndim != 3 or values.size == 0:
        return np.zeros((0, 1, 1), np.uint8)
    if len(values) != 3:
        values = values.mean(axis=0, keepdims=True)
    largest = float(np.abs(values).max())
    levels = np.rint(128 + 127 * values / (largest or 1.0)).astype(np.uint8)
    return levels.transpose(1, 2, 0)[None] if len(levels) == 3 else levels


def _as_strips(tiles: np.ndarray, max_rows: int = 1) -> np.ndarray:
    """Return tiles (n, h, w, ...) of few and long rows with each row repeated; others as they are.

    Args:
        tiles: to be shown.
        max_rows: the largest number of rows of a strip.
    """
    height, width = tiles.shape[1:3]
    if height > max_rows:
        return tiles
    return tiles.repeat(max(1, width // (STRIP_RATIO * height)), axis=1)


def _downsample(images: np.ndarray) -> np.ndarray:
    """Return ``images`` (n, h, w, ...) as means of square blocks, at most `MAX_SIZE` pixels."""
    h, w = images.shape[1:3]
    block = -(-max(h, w) // MAX_SIZE)
    if block == 1:
        return images
    rows, columns = -(-h // block), -(-w // block)
    pad = [(0, 0), (0, rows * block - h), (0, columns * block - w)]
    padded = np.pad(images, pad + [(0, 0)] * (images.ndim - 3), mode="edge")
    # Much faster than a mean over two axes.
    row_sums = np.add.reduce([padded[:, k::block] for k in range(block)])
    total = np.add.reduce([row_sums[:, :, k::block] for k in range(block)])
    means: np.ndarray = total / np.float32(block**2)
    return means
