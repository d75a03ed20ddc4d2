"""The receptive field: which pixels of the input image a unit of an activation map depends on.

It is computed from the autograd graph of one forward, from the map back to the image, with the
strides, kernels, dilations and paddings that modules and plain functions really used. Where
branches meet, it is the union of theirs. Rows and columns are traced separately, for all units
together. `receptive_field_rules` has the rule of each operation.

The result is exact except for pixels that a dilated kernel skips at the border of a padded map. An
operation without a rule counts as depending on its whole input. A factor that is the same at all
positions (squeeze-and-excitation, normalization by the image's own statistics) is ignored: it
carries no position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from revacnn_lightning.telemetry.inspection.autograd_graph import backward_path
from revacnn_lightning.telemetry.inspection.receptive_field_rules import RULES

__all__ = ["PixelBox", "ReceptiveField", "compute_receptive_field"]

EMPTY = (2**40, -1)  # first and last index of a unit that depends on padding only

Shape = tuple[int, ...] | None  # None: unknown


class PixelBox(NamedTuple):
    """A rectangle of pixels; ``bottom`` and ``right`` are exclusive."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive fields of all units of a map of H×W.

    Attributes:
        rows: (H, 2), the first and the last row of pixels that a unit in each row depends on.
        columns: (W, 2), the same of columns.
    """

    rows: np.ndarray
    columns: np.ndarray

    @classmethod
    def of_whole_image(cls, units: Sequence[int], image: Sequence[int]) -> ReceptiveField:
        """Return that each unit of a map of this size depends on the whole image of (h, w)."""
        rows, columns = (
            np.tile([0, length - 1], (count, 1)) for count, length in zip(units, image, strict=True)
        )
        return cls(rows, columns)

    def box(self, row: int, column: int) -> PixelBox:
        """Return the receptive field of one unit."""
        (top, bottom), (left, right) = self.rows[row].tolist(), self.columns[column].tolist()
        return PixelBox(top, left, bottom + 1, right + 1)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the largest receptive field, in pixels."""
        height, width = (int(np.ptp(ends, axis=1).max()) + 1 for ends in (self.rows, self.columns))
        return height, width


def compute_receptive_field(maps: Tensor, image: Tensor) -> ReceptiveField:
    """Return the receptive fields of the units of ``maps`` (1, C, H, W) in ``image`` (1, c, h, w).

    ``maps`` must have been computed from ``image``, a leaf that requires a gradient. Without a
    path between them every unit gets the whole image.
    """
    path = backward_path(maps, image)
    rows, columns = (_trace(path, image, maps.shape[2 + axis], axis) for axis in (0, 1))
    return ReceptiveField(rows, columns)


def _trace(path: list[Any], image: Tensor, units: int, axis: int) -> np.ndarray:
    """Return the first and last pixel (units, 2) along one axis: 0 for rows, 1 for columns."""
    whole = np.tile([0, image.shape[2 + axis] - 1], (units, 1))
    if not path:
        return whole
    on_path = set(path)
    # Which indices of the output of a node the units depend on, (units, 2).
    ranges = {path[0]: np.repeat(np.arange(units), 2).reshape(-1, 2)}
    for node in path[:-1]:
        if node not in ranges:
            continue  # only a position-independent factor leads here
        for previous, output in node.next_functions:
            if previous not in on_path:
                continue
            input_shape, output_shape = _shape(previous, output, image), _shape(node, 0, image)
            if _is_broadcast(node, input_shape, output_shape):
                continue
            lengths = _length(input_shape, axis), _length(output_shape, axis)
            part = _apply_rule(node, axis, ranges[node], *lengths)
            known = ranges.get(previous)
            ranges[previous] = part if known is None else _union(known, part)
    ends = _clip(ranges.get(path[-1], whole), image.shape[2 + axis])
    return np.where((ends[:, :1] > ends[:, 1:]), whole, ends)


def _shape(node: Any, output: int, image: Tensor) -> Shape:
    """Return the shape of what the forward of ``node`` returned, if this torch version knows it."""
    if getattr(node, "variable", None) is image:
        return tuple(image.shape)
    metadata = getattr(node, "_input_metadata", None)
    return None if metadata is None or output >= len(metadata) else tuple(metadata[output].shape)


def _length(shape: Shape, axis: int) -> int | None:
    return None if shape is None or len(shape) < 3 else shape[axis - 2]


def _is_broadcast(node: Any, input_shape: Shape, output_shape: Shape) -> bool:
    """Return whether the node broadcasts one value per channel over a whole map."""
    if input_shape is None or output_shape is None or len(input_shape) < 3 or len(output_shape) < 3:
        return False
    return (
        input_shape[-2:] == (1, 1) != output_shape[-2:]
        and _rule_name(node) != "ConvolutionBackward"
    )


def _rule_name(node: Any) -> str:
    """Return the name of the node without its version number, as in ``RULES``."""
    name: str = node.name()
    return name.rstrip("0123456789")


def _apply_rule(
    node: Any, axis: int, ends: np.ndarray, input_length: int | None, output_length: int | None
) -> np.ndarray:
    """Return which indices of the node's input the output indices ``ends`` depend on."""
    rule, result = RULES.get(_rule_name(node)), None
    if rule is not None and input_length is not None and output_length is not None:
        result = rule(node, axis, ends, input_length, output_length)
    if result is None:
        result = np.tile([0, (input_length or EMPTY[0]) - 1], (len(ends), 1))
    return np.where(ends[:, :1] > ends[:, 1:], np.array(EMPTY), _clip(result, input_length))


def _clip(ends: np.ndarray, length: int | None) -> np.ndarray:
    """Remove the padding from the ranges."""
    first, last = np.maximum(ends[:, 0], 0), ends[:, 1]
    if length is not None:
        last = np.minimum(last, length - 1)
    clipped = np.stack([first, last], axis=1)
    clipped[first > last] = EMPTY
    return clipped


def _union(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the smallest ranges that contain both."""
    return np.stack([np.minimum(a[:, 0], b[:, 0]), np.maximum(a[:, 1], b[:, 1])], axis=1)
