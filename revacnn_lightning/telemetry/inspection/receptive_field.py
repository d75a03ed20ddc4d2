"""Which pixels of the input image a unit of a map can see: its receptive field.

Read off the autograd graph of one forward, from the map back to the image: strides, kernels,
dilations and paddings as they were really used, by modules and by plain functions alike; where
branches meet, what any of them sees. Rows and columns are traced apart, for all units at once.

It is exact, but for pixels that a dilated kernel leaves out at the border of a padded map. What an
operation that is not known here could see is all of its input. A factor that is the same at all
places (squeeze-and-excitation, normalisation by the image's own statistics) is left out: it says
nothing of where.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

__all__ = ["PixelBox", "ReceptiveField", "path_between", "receptive_field"]

NOWHERE = (2**40, -1)  # first and last of what sees nothing: only padding


class PixelBox(NamedTuple):
    """Pixels of an image, from ``top`` and ``left`` to before ``bottom`` and ``right``."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive fields of all units of a map of H×W.

    ``rows`` (H, 2) and ``columns`` (W, 2): the first and the last row and column of pixels that a
    unit in this row or column of the map sees, within the image.
    """

    rows: np.ndarray
    columns: np.ndarray

    def box(self, row: int, column: int) -> PixelBox:
        """What the unit in this row and column of the map sees."""
        (top, bottom), (left, right) = self.rows[row].tolist(), self.columns[column].tolist()
        return PixelBox(top, left, bottom + 1, right + 1)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the largest of them, in pixels."""
        height, width = (int(np.ptp(ends, axis=1).max()) + 1 for ends in (self.rows, self.columns))
        return height, width


def path_between(maps: Tensor, image: Tensor) -> list[Any]:
    """The nodes of the autograd graph on the ways from ``maps`` back to ``image``.

    Each before those it depends on; the last is that of ``image``, a leaf that requires a
    gradient. Empty: no gradient leads there.
    """
    leads: dict[Any, bool] = {}
    finished: list[Any] = []
    stack: list[tuple[Any, bool]] = [] if maps.grad_fn is None else [(maps.grad_fn, False)]
    while stack:
        node, seen = stack.pop()
        following = [after for after, _ in node.next_functions if after is not None]
        if seen:
            leads[node] = getattr(node, "variable", None) is image or any(
                leads.get(after, False) for after in following
            )
            finished.append(node)
        elif node not in leads:
            leads[node] = False
            stack.append((node, True))
            stack += [(after, False) for after in following if after not in leads]
    return [node for node in reversed(finished) if leads[node]]


def receptive_field(maps: Tensor, image: Tensor) -> ReceptiveField:
    """The receptive fields of the units of ``maps`` (1, C, H, W) in ``image`` (1, c, h, w).

    ``maps`` was computed from ``image``, a leaf that requires a gradient.
    """
    nodes = path_between(maps, image)
    seen = [_trace(nodes, image, maps.shape[2 + axis], axis) for axis in (0, 1)]
    return ReceptiveField(*seen)


def _trace(nodes: list[Any], image: Tensor, units: int, axis: int) -> np.ndarray:
    """First and last (units, 2) along one axis: 0 for rows, 1 for columns."""
    everything = np.tile([0, image.shape[2 + axis] - 1], (units, 1))
    if not nodes:
        return everything
    on_the_way = set(nodes)
    reach = {nodes[0]: np.repeat(np.arange(units), 2).reshape(-1, 2)}
    for node in nodes[:-1]:
        if node not in reach:
            continue  # sees only what is the same everywhere
        for after, output in node.next_functions:
            if after not in on_the_way:
                continue
            given, made = _shape(after, output, image), _shape(node, 0, image)
            if _is_spread(node, given, made):
                continue
            part = _through(node, axis, reach[node], _length(given, axis), _length(made, axis))
            known = reach.get(after)
            reach[after] = part if known is None else _union(known, part)
    ends = _within(reach.get(nodes[-1], everything), image.shape[2 + axis])
    return np.where((ends[:, :1] > ends[:, 1:]), everything, ends)


def _shape(node: Any, output: int, image: Tensor) -> tuple[int, ...] | None:
    """Of what the forward of this node has given; None where this version of torch cannot tell."""
    if getattr(node, "variable", None) is image:
        return tuple(image.shape)
    metadata = getattr(node, "_input_metadata", None)
    return None if metadata is None or output >= len(metadata) else tuple(metadata[output].shape)


def _length(shape: tuple[int, ...] | None, axis: int) -> int | None:
    return None if shape is None or len(shape) < 3 else shape[axis - 2]


def _is_spread(node: Any, given: tuple[int, ...] | None, made: tuple[int, ...] | None) -> bool:
    """Whether the node spreads one value per channel over a whole map."""
    if given is None or made is None or len(given) < 3 or len(made) < 3:
        return False
    return given[-2:] == (1, 1) != made[-2:] and _name(node) != "ConvolutionBackward"


def _name(node: Any) -> str:
    """As in ``_RULES``: without a version number."""
    name: str = node.name()
    return name.rstrip("0123456789")


def _through(
    node: Any, axis: int, ends: np.ndarray, length: int | None, made: int | None
) -> np.ndarray:
    """What of an input of this node the outputs from first to last depend on."""
    rule, before = _RULES.get(_name(node)), None
    if rule is not None and length is not None and made is not None:
        before = rule(node, axis, ends, length, made)
    if before is None:  # it may be all
        before = np.tile([0, (length or NOWHERE[0]) - 1], (len(ends), 1))
    return np.where(ends[:, :1] > ends[:, 1:], np.array(NOWHERE), _within(before, length))


def _within(ends: np.ndarray, length: int | None) -> np.ndarray:
    """Without what lies in the padding."""
    first, last = np.maximum(ends[:, 0], 0), ends[:, 1]
    if length is not None:
        last = np.minimum(last, length - 1)
    clipped = np.stack([first, last], axis=1)
    clipped[first > last] = NOWHERE
    return clipped


def _union(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.stack([np.minimum(a[:, 0], b[:, 0]), np.maximum(a[:, 1], b[:, 1])], axis=1)


# ---------------------------------------------------------------------- what operations depend on

# ``(node, axis, ends, length, made) -> ends``: from first and last of the output, which is
# ``made`` long, to first and last of the input, which is ``length`` long. None: it is not known.
Rule = Callable[[Any, int, np.ndarray, Any, Any], "np.ndarray | None"]


def _along(values: Any, axis: int) -> int:
    """The number for this axis out of those for all axes, the last two being rows and columns."""
    return int(values[axis - 2 if len(values) > 1 else 0])


def _window(ends: np.ndarray, kernel: int, stride: int, padding: int, dilation: int) -> np.ndarray:
    first = ends[:, 0] * stride - padding
    last = ends[:, 1] * stride - padding + dilation * (kernel - 1)
    return np.stack([first, last], axis=1)


def _convolution(node: Any, axis: int, ends: np.ndarray, length: int, made: int) -> np.ndarray:
    kernel = node._saved_weight.shape[axis - 2]
    stride, padding, dilation = (
        _along(values, axis)
        for values in (node._saved_stride, node._saved_padding, node._saved_dilation)
    )
    if not node._saved_transposed:
        return _window(ends, kernel, stride, padding, dilation)
    first = -((dilation * (kernel - 1) - padding - ends[:, 0]) // stride)
    return np.stack([first, (ends[:, 1] + padding) // stride], axis=1)


def _pool(node: Any, axis: int, ends: np.ndarray, length: int, made: int) -> np.ndarray:
    kernel = _along(node._saved_kernel_size, axis)
    stride = _along(node._saved_stride, axis) if len(node._saved_stride) else kernel
    dilation = _along(getattr(node, "_saved_dilation", (1,)), axis)
    return _window(ends, kernel, stride, _along(node._saved_padding, axis), dilation)


def _adaptive(node: Any, axis: int, ends: np.ndarray, length: int, made: int) -> np.ndarray:
    first, last = ends[:, 0] * length // made, -((-(ends[:, 1] + 1) * length) // made) - 1
    return np.stack([first, last], axis=1)


def _upsample(before: int, after: int) -> Rule:
    """Interpolation out of the pixels around, so many before and after the place itself."""

    def rule(node: Any, axis: int, ends: np.ndarray, length: int, made: int) -> np.ndarray:
        if getattr(node, "_saved_align_corners", False):
            at = ends * (length - 1) / max(1, made - 1)
        elif before or after:
            at = (ends + 0.5) * length / made - 0.5
        else:
            at = ends * length / made
        at = np.floor(at + 1e-6).astype(np.int64)
        return np.clip(at + np.array([-before, after]), 0, length - 1)

    return rule


def _padding(node: Any, axis: int) -> int:
    """Before the first; the saved ones begin with those of the last axis."""
    values = getattr(node, "_saved_pad", None) or node._saved_padding
    at = 2 * (1 - axis)
    return _signed(values[at]) if at < len(values) else 0


def _signed(value: int) -> int:
    """Negative numbers are handed out as unsigned ones."""
    return value - 2**64 if value >= 2**63 else value


def _zeros_around(node: Any, axis: int, ends: np.ndarray, length: int, made: int) -> np.ndarray:
    return ends - _padding(node, axis)


def _edge_around(node: Any, axis: int, ends: np.ndarray, length: int, made: int) -> np.ndarray:
    return np.clip(ends - _padding(node, axis), 0, length - 1)


def _mirror_around(node: Any, axis: int, ends: np.ndarray, length: int, made: int) -> np.ndarray:
    first, last = (ends - _padding(node, axis)).T
    end = length - 1
    folded = [np.where((at < 0), -at, np.where(at > end, 2 * end - at, at)) for at in (first, last)]
    lowest, highest = np.minimum(*folded), np.maximum(*folded)
    lowest = np.where((first < 0) & (last >= 0), 0, lowest)
    return np.stack([lowest, np.where((first <= end) & (last > end), end, highest)], axis=1)


def _slice(node: Any, axis: int, ends: np.ndarray, length: int, made: int) -> np.ndarray:
    shape = node._saved_self_sym_sizes
    if _signed(node._saved_dim) % len(shape) != len(shape) - 2 + axis:
        return ends
    start = _signed(node._saved_start)
    return (start if start >= 0 else start + length) + ends * node._saved_step


def _shuffle(node: Any, axis: int, ends: np.ndarray, length: int, made: int) -> np.ndarray:
    return ends // node._saved_upscale_factor


def _unshuffle(node: Any, axis: int, ends: np.ndarray, length: int, made: int) -> np.ndarray:
    factor = node._saved_downscale_factor
    return ends * factor + [0, factor - 1]


def _place_by_place(
    node: Any, axis: int, ends: np.ndarray, length: int, made: int
) -> np.ndarray | None:
    """An output depends on the input at its own place; of what was spread out, on the one."""
    if length == made:
        return ends
    return np.zeros_like(ends) if length == 1 else None


def _view(node: Any, axis: int, ends: np.ndarray, length: int, made: int) -> np.ndarray | None:
    """Another shape of the same, if it leaves rows and columns alone."""
    before, after = node._saved_self_sym_sizes, node._input_metadata[0].shape
    return ends if tuple(before[-2:]) == tuple(after[-2:]) else None


def _other_dimensions(node: Any, axis: int, ends: np.ndarray, length: int, made: int) -> Any:
    """Along a dimension, or two, that must be neither rows nor columns."""
    saved = [name for name in ("_saved_dim", "_saved_dim0", "_saved_dim1") if hasattr(node, name)]
    dimensions = {_signed(getattr(node, name)) for name in saved}
    shape = node._input_metadata[0].shape
    inner = {-1, -2, len(shape) - 1, len(shape) - 2}
    return None if dimensions & inner else _place_by_place(node, axis, ends, length, made)


_ELEMENTWISE = (
    *("Abs", "Add", "Alias", "Clamp", "ClampMax", "ClampMin", "Clone", "Div", "Elu", "Erf", "Exp"),
    *("Expand", "Gelu", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyRelu", "Log"),
    *("LogSigmoid", "Maximum", "Minimum", "Mish", "Mul"),
    *("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "NativeGroupNorm", "NativeDropout"),
    *("Neg", "Pow", "PreluKernel", "Relu", "RreluWithNoise", "Rsqrt", "Rsub", "Sigmoid", "Silu"),
    *("Softplus", "Softshrink", "Sqrt", "Sub", "Tanh", "Threshold", "ToCopy", "Where"),
)
_RULES: dict[str, Rule] = {
    **{f"{name}Backward": _place_by_place for name in _ELEMENTWISE},
    **{
        f"{name}Backward": _other_dimensions
        for name in ("Cat", "IndexSelect", "Split", "SplitWithSizes", "Transpose", "Unsqueeze")
    },
    **{f"{name}Backward": _view for name in ("ReshapeAlias", "Squeeze", "UnsafeView", "View")},
    **{
        f"{name}Backward": _pool
        for name in ("AvgPool2D", "AvgPool3D", "MaxPool2DWithIndices", "MkldnnMaxPool2D")
    },
    "AdaptiveAvgPool2DBackward": _adaptive,
    "AdaptiveMaxPool2DBackward": _adaptive,
    "ConvolutionBackward": _convolution,
    "ConstantPadNdBackward": _zeros_around,
    "PixelShuffleBackward": _shuffle,
    "PixelUnshuffleBackward": _unshuffle,
    "ReflectionPad2DBackward": _mirror_around,
    "ReplicationPad2DBackward": _edge_around,
    "SliceBackward": _slice,
    "UpsampleNearest2DBackward": _upsample(0, 0),
    "UpsampleBilinear2DBackward": _upsample(0, 1),
    "UpsampleBicubic2DBackward": _upsample(1, 2),
}
