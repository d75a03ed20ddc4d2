"""What a filter inspection sends of images, signals and volumes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from revacnn_lightning.protocol.inspections import TopImage, VolumeSlice
from revacnn_lightning.runtime.layer_details import EMPTY, encode_image_as_float16
from revacnn_lightning.telemetry.inspection.downsampling import downsample_signal
from revacnn_lightning.telemetry.inspection.half_precision import normalized_half
from revacnn_lightning.telemetry.inspection.map_images import slice_index
from revacnn_lightning.telemetry.inspection.receptive_field import PixelBox, as_volume
from revacnn_lightning.telemetry.inspection.top_images import RankedImage

__all__ = [
    "box_edges",
    "encode_crop",
    "encode_inspected_input",
    "encode_signal_response_map",
    "encode_top_image",
    "input_height_and_width",
    "volume_slice_at_depth",
    "whole_image_box",
]

MAX_VALUES = 2**16  # of a signal
MAX_MAP_LENGTH = 2048

Edges = tuple[int, int, int, int]


def box_edges(box: PixelBox) -> Edges:
    """Return the edges of a box: top, left, bottom and right."""
    return box.top, box.left, box.bottom, box.right


def input_height_and_width(image: Tensor | None) -> tuple[int, int]:
    """Return the height and width of an input; the height of a signal is 1."""
    if image is None:
        return (0, 0)
    height, width = (1, 1, *image.shape)[-2:]
    return (1 if image.dim() == 2 else height), width


def _shown_slice(box: PixelBox, count: int, depth: float) -> VolumeSlice:
    """Return which slice of the box of a volume of ``count`` slices lies at this depth."""
    index = box.front + slice_index(box.back - box.front, depth)
    return VolumeSlice(index, count, box.front, box.back)


def encode_inspected_input(image: Tensor | None, volume: VolumeSlice | None) -> np.ndarray:
    """Return an input as messages hold it, (channels, h, w); the shown slice of a volume."""
    if image is None:
        return EMPTY
    if image.dim() == 2:
        length = max(2, MAX_VALUES // max(1, len(image)))
        return normalized_half(downsample_signal(image.detach().float(), length)[:, None])
    if image.dim() == 4 and volume is not None:
        return encode_image_as_float16(image[:, volume.index])
    return encode_image_as_float16(image)


def encode_crop(values: Tensor | None, depth: float) -> np.ndarray:
    """Return a crop (channels, d, h, w) as messages hold it: its slice at this depth."""
    if values is None:
        return EMPTY
    return normalized_half(values)[:, slice_index(values.shape[1], depth)]


def encode_signal_response_map(image: Tensor | None, response_map: Tensor | None) -> np.ndarray:
    """Return a filter's map (1, L) of a signal as messages hold it, (l,); (0,) for others."""
    if image is None or image.dim() != 2 or response_map is None or len(response_map) != 1:
        return EMPTY
    return normalized_half(
        downsample_signal(torch.nan_to_num(response_map[0].float()), MAX_MAP_LENGTH)
    )


def encode_top_image(found: RankedImage, depth: float) -> TopImage:
    """Return a top image as messages hold it; of a volume, the slice at this depth."""
    count, *size = found.image_size
    crop = found.crop[:, slice_index(found.crop.shape[1], depth)]
    volume = _shown_slice(found.box, count, depth) if found.is_volume else None
    return TopImage(
        crop, box_edges(found.box), (size[0], size[1]), found.response, found.step, volume
    )


def volume_slice_at_depth(
    shape: Sequence[int], box: PixelBox | None, depth: float
) -> VolumeSlice | None:
    """Return which slice of a volume of this shape is sent; None if it is no volume."""
    if len(shape) != 4:
        return None
    _, count, height, width = shape
    return _shown_slice(box or PixelBox(0, 0, height, width, 0, count), count, depth)


def whole_image_box(image: Tensor) -> PixelBox:
    """Return the box that covers the whole input."""
    _, depth, height, width = as_volume(image).shape
    return PixelBox(0, 0, height, width, 0, depth)
