"""Activation maps of one image as small pictures, one of each filter."""

from __future__ import annotations

from torch import Tensor

from revacnn_lightning.telemetry.inspection.downsampling import thumbnails
from revacnn_lightning.telemetry.unit_layers import UnitLayer, kernel_size, to_maps

__all__ = ["MIDDLE", "first_image_thumbnails", "slice_index"]

MIDDLE = 0.5  # of the slices of a volume


def first_image_thumbnails(
    layer: UnitLayer, output: Tensor, depth: float = MIDDLE
) -> Tensor | None:
    """Return the downsampled activation maps of the first image of a batch.

    Args:
        layer: the layer.
        output: the output of the layer, or of the non-linearity behind it, for a batch.
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


def slice_index(slice_count: int, relative_depth: float) -> int:
    """Return the index of the slice at this depth: 0 is the first slice, 1 the last."""
    return round(relative_depth * (slice_count - 1))
