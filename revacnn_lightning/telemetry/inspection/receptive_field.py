"""The receptive field: which positions of the input a unit of an activation map depends on.

The input is an image, a signal or a volume. It is read as a volume of D×H×W pixels: an image has
one slice, a signal one row.

The field is computed from the autograd graph of one forward, from the map back to the input, with
the strides, kernels, dilations and paddings that modules and plain functions really used. Where
branches meet, it is the union of theirs. Slices, rows and columns are traced separately, for all
units together. `receptive_field_rules` has the rule of each operation, and `moved_dimensions` says
where an operation moves a dimension.

The result is exact except for pixels that a dilated kernel skips at the border of a padded map. An
operation without a rule counts as depending on its whole input. A factor that is the same at all
positions (squeeze-and-excitation, normalization by the image's own statistics) is ignored: it
carries no position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from revacnn_lightning.telemetry.inspection.autograd_graph import backward_path
from revacnn_lightning.telemetry.inspection.moved_dimensions import (
    input_dimension,
    unversioned_name,
)
from revacnn_lightning.telemetry.inspection.receptive_field_rules import RULES

__all__ = ["PixelBox", "ReceptiveFields", "as_volume", "compute_receptive_fields"]

EMPTY = (2**40, -1)  # first and last index of a unit that depends on padding only

Shape = tuple[int, ...] | None  # None: unknown


class PixelBox(NamedTuple):
    """A part of an input; ``bottom``, ``right`` and ``back`` are exclusive.

    That of a signal has one row, that of a signal or of an image one slice.
    """

    top: int
    left: int
    bottom: int
    right: int
    front: int = 0
    back: int = 1

    def crop(self, pixels: Tensor) -> Tensor:
        """Return the box of (channels, D, H, W), as a view."""
        return pixels[:, self.front : self.back, self.top : self.bottom, self.left : self.right]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Depth, height and width."""
        return self.back - self.front, self.bottom - self.top, self.right - self.left


def as_volume(values: Tensor) -> Tensor:
    """Return an input as a volume (channels, D, H, W), as a view.

    Args:
        values: an image (channels, H, W), a signal (channels, L), or a volume.
    """
    while values.dim() < 4:
        values = values.unsqueeze(1)
    return values


def _one() -> np.ndarray:
    return np.zeros((1, 2), int)


@dataclass(frozen=True)
class ReceptiveFields:
    """The receptive fields of all units of a map of D×H×W.

    Attributes:
        rows: (H, 2), the first and the last row of pixels that a unit in each row depends on.
        columns: (W, 2), the same of columns.
        slices: (D, 2), the same of slices.
    """

    rows: np.ndarray
    columns: np.ndarray
    slices: np.ndarray = field(default_factory=_one)

    @classmethod
    def of_whole_input(cls, units: Sequence[int], size: Sequence[int]) -> ReceptiveFields:
        """Return that each unit of a map (D, H, W) depends on the whole input (D, H, W)."""
        slices, rows, columns = (
            np.tile([0, length - 1], (count, 1)) for count, length in zip(units, size, strict=True)
        )
        return cls(rows, columns, slices)

    def box(self, row: int, column: int, slice: int = 0) -> PixelBox:
        """Return the receptive field of one unit."""
        (top, bottom), (left, right) = self.rows[row].tolist(), self.columns[column].tolist()
        front, back = self.slices[slice].tolist()
        return PixelBox(top, left, bottom + 1, right + 1, front, back + 1)

    @property
    def max_size(self) -> tuple[int, int]:
        """Height and width of the largest receptive field, in pixels."""
        return _largest(self.rows), _largest(self.columns)

    @property
    def max_depth(self) -> int:
        """Depth of the largest receptive field, in slices."""
        return _largest(self.slices)


def _largest(ends: np.ndarray) -> int:
    return int(np.ptp(ends, axis=1).max()) + 1


def compute_receptive_fields(maps: Tensor, pixels: Tensor) -> ReceptiveFields:
    """Return the receptive fields of the units of ``maps`` (1, C, ...) in ``pixels`` (1, c, ...).

    Both have one to three dimensions of positions: ([[D,] H,] W). ``maps`` must have been computed
    from ``pixels``, a leaf that requires a gradient. Without a path between them every unit gets
    the whole input.
    """
    path = backward_path(maps, pixels)
    dimensions = range(-1, 1 - pixels.dim(), -1)
    ends = [_trace(path, pixels, maps.shape[dim], dim) for dim in dimensions]
    columns, rows, slices = *ends, *(_one() for _ in range(3 - len(ends)))
    return ReceptiveFields(rows, columns, slices)


@dataclass(frozen=True)
class _Positions:
    """Which indices of a tensor the units depend on.

    Attributes:
        ends: (units, 2), the first and the last index.
        dim: a dimension of the tensor, negative; None if they depend on the whole tensor.
    """

    ends: np.ndarray
    dim: int | None


def _trace(path: list[Any], pixels: Tensor, units: int, dim: int) -> np.ndarray:
    """Return the first and the last pixel (units, 2) along one dimension, a negative number."""
    whole = np.tile([0, pixels.shape[dim] - 1], (units, 1))
    if not path:
        return whole
    on_path = set(path)
    ranges = {path[0]: _Positions(np.repeat(np.arange(units), 2).reshape(-1, 2), dim)}
    for node in path[:-1]:
        if node not in ranges:
            continue  # only a position-independent factor leads here
        for previous, output in node.next_functions:
            if previous not in on_path:
                continue
            input_shape, output_shape = _shape(previous, output, pixels), _shape(node, 0, pixels)
            if _is_broadcast(node, input_shape, output_shape, pixels.dim() - 2):
                continue
            part = _before(node, ranges[node], input_shape, output_shape)
            known = ranges.get(previous)
            ranges[previous] = part if known is None else _union(known, part)
    found = ranges.get(path[-1])
    if found is None or found.dim != dim:
        return whole
    ends = _clip(found.ends, pixels.shape[dim])
    return np.where((ends[:, :1] > ends[:, 1:]), whole, ends)


def _shape(node: Any, output: int, pixels: Tensor) -> Shape:
    """Return the shape of what the forward of ``node`` returned, if this torch version knows it."""
    if getattr(node, "variable", None) is pixels:
        return tuple(pixels.shape)
    metadata = getattr(node, "_input_metadata", None)
    return None if metadata is None or output >= len(metadata) else tuple(metadata[output].shape)


def _is_broadcast(node: Any, input_shape: Shape, output_shape: Shape, dimensions: int) -> bool:
    """Return whether the node broadcasts one value per channel over a whole map.

    Args:
        node: a node of the graph.
        input_shape: the shape of its input.
        output_shape: the shape of its output.
        dimensions: the number of dimensions of positions.
    """
    if input_shape is None or output_shape is None:
        return False
    if min(len(input_shape), len(output_shape)) <= dimensions:
        return False
    return (
        input_shape[-dimensions:] == (1,) * dimensions != output_shape[-dimensions:]
        and unversioned_name(node) != "ConvolutionBackward"
    )


def _before(node: Any, after: _Positions, input_shape: Shape, output_shape: Shape) -> _Positions:
    """Return which indices of the node's input its output at these indices depends on."""
    dim = None
    if after.dim is not None and input_shape is not None and output_shape is not None:
        dim = input_dimension(node, after.dim, len(input_shape), len(output_shape))
    if dim is None or input_shape is None or output_shape is None or after.dim is None:
        return _Positions(after.ends, None)
    rule, result = RULES.get(unversioned_name(node)), None
    if rule is not None:
        lengths = input_shape[dim], output_shape[after.dim]
        result = rule(node, after.dim, after.ends, *lengths)
    if result is None:
        if len(input_shape) != len(output_shape):
            return _Positions(after.ends, None)
        result = np.tile([0, input_shape[dim] - 1], (len(after.ends), 1))
    is_empty = after.ends[:, :1] > after.ends[:, 1:]
    ends = np.where(is_empty, np.array(EMPTY), _clip(result, input_shape[dim]))
    return _Positions(ends, dim)


def _clip(ends: np.ndarray, length: int) -> np.ndarray:
    """Remove the padding from the ranges."""
    first, last = np.maximum(ends[:, 0], 0), np.minimum(ends[:, 1], length - 1)
    clipped = np.stack([first, last], axis=1)
    clipped[first > last] = EMPTY
    return clipped


def _union(a: _Positions, b: _Positions) -> _Positions:
    """Return the smallest ranges that contain both."""
    if a.dim != b.dim:
        return _Positions(a.ends, None)
    first, last = np.minimum(a.ends[:, 0], b.ends[:, 0]), np.maximum(a.ends[:, 1], b.ends[:, 1])
    return _Positions(np.stack([first, last], axis=1), a.dim)
