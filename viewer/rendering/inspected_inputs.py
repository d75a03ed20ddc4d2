"""Images, signals and slices of volumes of a filter inspection as the page draws them.

An image is a tile. A signal (channels, 1, L) is a curve per channel, uint8 (channels, l); one of
many channels, as a spectrogram, is a tile with a row per channel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from revacnn_lightning.protocol.inspections import VolumeSlice

from .thumbnails import attribution_tile, image_tile

__all__ = [
    "attribution_picture",
    "describe_input_crop",
    "describe_receptive_field_crop",
    "input_picture",
    "is_drawn_as_curves",
    "quantize_curves",
    "signal_raster_row_count",
]

MAX_CURVES = 16  # channels of a signal that are drawn as curves
MAX_LENGTH = 1024  # of a curve
MAX_SIDE = 256  # of the tile of a signal of many channels


def is_drawn_as_curves(values: np.ndarray) -> bool:
    """Return whether an input (channels, h, w) is drawn as curves."""
    return _is_signal(values) and len(values) <= MAX_CURVES


def input_picture(values: np.ndarray) -> np.ndarray:
    """Return an input (channels, h, w) as the page draws it: a tile (1, h, w, 3), or curves."""
    if is_drawn_as_curves(values):
        return quantize_curves(values[:, 0])
    if _is_signal(values):
        return image_tile(_shrink(values[:, 0])[None])
    return image_tile(values)


def quantize_curves(values: np.ndarray, column_slice: slice = slice(None)) -> np.ndarray:
    """Return curves (channels, n) as levels of their common range, uint8 (channels, l).

    Args:
        values: the values of the curves; uint8 values are levels already.
        column_slice: the columns to return.
    """
    known = np.nan_to_num(np.asarray(values, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(known.min()), float(known.max())
    if values.dtype == np.uint8:
        low, high = 0.0, 255.0
    levels = (known - low) / (high - low) if high > low else np.full_like(known, 0.5)
    levels = levels[:, column_slice]
    if levels.shape[1] > MAX_LENGTH:  # the smallest and the largest value of each block
        blocks = _blocks(levels, -(-levels.shape[1] // (MAX_LENGTH // 2)))
        levels = np.stack([blocks.min(-1), blocks.max(-1)], -1).reshape(len(levels), -1)
    return np.rint(255 * levels).astype(np.uint8)


def attribution_picture(values: np.ndarray) -> np.ndarray:
    """Return an attribution (channels, h, w) as the page draws it: a tile, or a strip of curves."""
    if not _is_signal(values):
        return attribution_tile(values)
    if len(values) > MAX_CURVES:
        return attribution_tile(_shrink(values[:, 0])[None])
    total = np.nan_to_num(values[:, 0].astype(np.float32)).mean(0, keepdims=True)
    if total.shape[1] > MAX_LENGTH:  # the value of each block with the largest magnitude
        blocks = _blocks(total, -(-total.shape[1] // MAX_LENGTH))
        chosen = np.abs(blocks).argmax(-1)[..., None]
        total = np.take_along_axis(blocks, chosen, -1)[..., 0]
    return attribution_tile(total[None])


def signal_raster_row_count(values: np.ndarray) -> int | None:
    """Return the number of rows of the tile of a signal of many channels; None for other inputs."""
    return len(values) if _is_signal(values) and not is_drawn_as_curves(values) else None


def describe_input_crop(
    box: Sequence[int], size: Sequence[int], volume: VolumeSlice | None, *, is_signal: bool
) -> str:
    """Return in words which part of an input is shown.

    Args:
        box: the top, left, bottom and right of the part, in pixels or values.
        size: the height and the width of the input.
        volume: the slice that is shown of a volume; None for other inputs.
        is_signal: whether the input is a signal.
    """
    top, left, bottom, right = box
    if is_signal:
        return f"values {left}–{right - 1} of {size[1]}"
    place = f"rows {top}–{bottom - 1}, columns {left}–{right - 1}"
    if volume is None:
        return f"{place} of {size[0]}×{size[1]} pixels"
    sizes = f"{volume.count}×{size[0]}×{size[1]} pixels"
    slices = f"slice {volume.index} of slices {volume.front}–{volume.back - 1}"
    return f"{slices}, {place} of {sizes}"


def describe_receptive_field_crop(
    size: tuple[int, int], depth: int, *, is_signal: bool, is_volume: bool
) -> str:
    """Return in words what the top images are cropped to."""
    height, width = size
    if not height:
        return "not cropped"
    if is_signal:
        return f"cropped to the receptive field of {width} values"
    sizes = f"{depth}×{height}×{width}" if is_volume else f"{height}×{width}"
    return f"cropped to the {sizes} receptive field"


def _is_signal(values: np.ndarray) -> bool:
    return values.ndim == 3 and values.shape[1] == 1 and values.shape[2] > 1


def _shrink(rows: np.ndarray) -> np.ndarray:
    """Return (rows, columns) as means of blocks, with few enough of both."""
    values = np.nan_to_num(rows.astype(np.float32))
    for axis in (0, 1):
        block = -(-values.shape[axis] // MAX_SIDE)
        if block > 1:
            moved = _blocks(np.moveaxis(values, axis, -1), block).mean(-1)
            values = np.moveaxis(moved, -1, axis)
    return values


def _blocks(values: np.ndarray, block: int) -> np.ndarray:
    """Return (..., n) as blocks (..., count, block); the last one repeats the last value."""
    missing = -values.shape[-1] % block
    padded = np.concatenate([values, np.repeat(values[..., -1:], missing, -1)], -1)
    return padded.reshape(*values.shape[:-1], -1, block)
