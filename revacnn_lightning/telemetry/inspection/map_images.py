"""Activation maps of one image as small pictures, one of each filter."""

from __future__ import annotations

from torch import Tensor

from revacnn_lightning.telemetry.inspection.downsampling import thumbnails
from revacnn_lightning.telemetry.unit_layers import UnitLayer, kernel_size, to_maps

__all__ = ["MIDDLE", "map_images", "slice_index"]

MIDDLE = 0.5  # of the slices of a volume


def map_images(layer: UnitLayer, output: Tensor, depth: float = MIDDLE) -> Tensor | None:
    """Return what a layer returned for the first image of a batch as pictures.

    Args:
        layer: the layer.
        output: what it, or the non-linearity behind it, returned.
        depth: which slice of a volume to show, from 0 for the first to 1 for the last.

    Returns:
        Downsampled maps (C, h, w). A sequence is one row. None if there is no image, or the output
        has another number of dimensions than the layer returns.
    """
    if len(kernel_size(layer)) == 3:
        volumes = output.unsqueeze(0) if output.dim() == 4 else output  # (B, C, D, H, W)
        if volumes.dim() != 5:
            return None
        output = volumes[:, :, slice_index(volumes.shape[2], depth)]
        return thumbnails(output[0]) if len(output) else None
    maps = to_maps(layer, output)
    return None if maps is None or not len(maps) else thumbnails(maps[0])


def slice_index(count: int, depth: float) -> int:
    """Return which of ``count`` slices lies at this depth, from 0 to 1."""
    return round(depth * (count - 1))
