"""Which input indices an operation's output depends on, by the name of its autograd node.

A rule handles one axis: 0 for rows, 1 for columns. Ranges are int arrays (units, 2) of the first
and the last index.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

__all__ = ["RULES", "Rule"]


class Rule(Protocol):
    """Maps ranges of an operation's output to ranges of its input."""

    def __call__(
        self, node: Any, axis: int, ends: np.ndarray, input_length: int, output_length: int, /
    ) -> np.ndarray | None:
        """Return the ranges of the input; None if they are unknown. Padding need not be clipped."""


def _of_axis(values: Any, axis: int) -> int:
    """Return the value for one axis out of (rows, columns) or of a single one for both."""
    return int(values[axis - 2 if len(values) > 1 else 0])


def _to_signed(value: int) -> int:
    """Undo that autograd exposes negative numbers as unsigned 64-bit ones."""
    return value - 2**64 if value >= 2**63 else value


# ---------------------------------------------------------------------- windows


def _window(ends: np.ndarray, kernel: int, stride: int, padding: int, dilation: int) -> np.ndarray:
    first = ends[:, 0] * stride - padding
    last = ends[:, 1] * stride - padding + dilation * (kernel - 1)
    return np.stack([first, last], axis=1)


def _convolution(
    node: Any, axis: int, ends: np.ndarray, input_length: int, output_length: int
) -> np.ndarray:
    kernel = node._saved_weight.shape[axis - 2]
    stride, padding, dilation = (
        _of_axis(values, axis)
        for values in (node._saved_stride, node._saved_padding, node._saved_dilation)
    )
    if not node._saved_transposed:
        return _window(ends, kernel, stride, padding, dilation)
    first = -((dilation * (kernel - 1) - padding - ends[:, 0]) // stride)
    return np.stack([first, (ends[:, 1] + padding) // stride], axis=1)


def _pool(
    node: Any, axis: int, ends: np.ndarray, input_length: int, output_length: int
) -> np.ndarray:
    kernel = _of_axis(node._saved_kernel_size, axis)
    stride = _of_axis(node._saved_stride, axis) if len(node._saved_stride) else kernel
    dilation = _of_axis(getattr(node, "_saved_dilation", (1,)), axis)
    return _window(ends, kernel, stride, _of_axis(node._saved_padding, axis), dilation)


def _adaptive_pool(
    node: Any, axis: int, ends: np.ndarray, input_length: int, output_length: int
) -> np.ndarray:
    first = ends[:, 0] * input_length // output_length
    last = -((-(ends[:, 1] + 1) * input_length) // output_length) - 1
    return np.stack([first, last], axis=1)


def _upsample(before: int, after: int) -> Rule:
    """Return the rule of an interpolation from so many pixels before and after a position."""

    def rule(
        node: Any, axis: int, ends: np.ndarray, input_length: int, output_length: int
    ) -> np.ndarray:
        if getattr(node, "_saved_align_corners", False):
            position = ends * (input_length - 1) / max(1, output_length - 1)
        elif before or after:
            position = (ends + 0.5) * input_length / output_length - 0.5
        else:
            position = ends * input_length / output_length
        index = np.floor(position + 1e-6).astype(np.int64)
        return np.clip(index + np.array([-before, after]), 0, input_length - 1)

    return rule


# ---------------------------------------------------------------------- padding and slicing


def _padding_before(node: Any, axis: int) -> int:
    """Return the padding before the first index. The saved pairs begin with the last axis."""
    values = getattr(node, "_saved_pad", None) or node._saved_padding
    index = 2 * (1 - axis)
    return _to_signed(values[index]) if index < len(values) else 0


def _zero_pad(
    node: Any, axis: int, ends: np.ndarray, input_length: int, output_length: int
) -> np.ndarray:
    return ends - _padding_before(node, axis)


def _replication_pad(
    node: Any, axis: int, ends: np.ndarray, input_length: int, output_length: int
) -> np.ndarray:
    return np.clip(ends - _padding_before(node, axis), 0, input_length - 1)


def _reflection_pad(
    node: Any, axis: int, ends: np.ndarray, input_length: int, output_length: int
) -> np.ndarray:
    first, last = (ends - _padding_before(node, axis)).T
    end = input_length - 1
    folded = [np.where((i < 0), -i, np.where(i > end, 2 * end - i, i)) for i in (first, last)]
    lowest, highest = np.minimum(*folded), np.maximum(*folded)
    lowest = np.where((first < 0) & (last >= 0), 0, lowest)
    return np.stack([lowest, np.where((first <= end) & (last > end), end, highest)], axis=1)


def _slice(
    node: Any, axis: int, ends: np.ndarray, input_length: int, output_length: int
) -> np.ndarray:
    shape = node._saved_self_sym_sizes
    if _to_signed(node._saved_dim) % len(shape) != len(shape) - 2 + axis:
        return ends
    start = _to_signed(node._saved_start)
    return (start if start >= 0 else start + input_length) + ends * node._saved_step


# ---------------------------------------------------------------------- reshaping


def _pixel_shuffle(
    node: Any, axis: int, ends: np.ndarray, input_length: int, output_length: int
) -> np.ndarray:
    return ends // node._saved_upscale_factor


def _pixel_unshuffle(
    node: Any, axis: int, ends: np.ndarray, input_length: int, output_length: int
) -> np.ndarray:
    factor = node._saved_downscale_factor
    return ends * factor + [0, factor - 1]


def _elementwise(
    node: Any, axis: int, ends: np.ndarray, input_length: int, output_length: int
) -> np.ndarray | None:
    """Each output depends on the input at its position, or on the only one if it is broadcast."""
    if input_length == output_length:
        return ends
    return np.zeros_like(ends) if input_length == 1 else None


def _view(
    node: Any, axis: int, ends: np.ndarray, input_length: int, output_length: int
) -> np.ndarray | None:
    """Known only for views that preserve rows and columns."""
    before, after = node._saved_self_sym_sizes, node._input_metadata[0].shape
    return ends if tuple(before[-2:]) == tuple(after[-2:]) else None


def _other_dimensions(
    node: Any, axis: int, ends: np.ndarray, input_length: int, output_length: int
) -> np.ndarray | None:
    """Known only for operations along one or two dimensions other than rows and columns."""
    saved = [name for name in ("_saved_dim", "_saved_dim0", "_saved_dim1") if hasattr(node, name)]
    dimensions = {_to_signed(getattr(node, name)) for name in saved}
    shape = node._input_metadata[0].shape
    spatial = {-1, -2, len(shape) - 1, len(shape) - 2}
    if dimensions & spatial:
        return None
    return _elementwise(node, axis, ends, input_length, output_length)


_ELEMENTWISE = (
    *("Abs", "Add", "Alias", "Clamp", "ClampMax", "ClampMin", "Clone", "Div", "Elu", "Erf", "Exp"),
    *("Expand", "Gelu", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyRelu", "Log"),
    *("LogSigmoid", "Maximum", "Minimum", "Mish", "Mul"),
    *("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "NativeGroupNorm", "NativeDropout"),
    *("Neg", "Pow", "PreluKernel", "Relu", "RreluWithNoise", "Rsqrt", "Rsub", "Sigmoid", "Silu"),
    *("Softplus", "Softshrink", "Sqrt", "Sub", "Tanh", "Threshold", "ToCopy", "Where"),
)
RULES: dict[str, Rule] = {
    **{f"{name}Backward": _elementwise for name in _ELEMENTWISE},
    **{
        f"{name}Backward": _other_dimensions
        for name in ("Cat", "IndexSelect", "Split", "SplitWithSizes", "Transpose", "Unsqueeze")
    },
    **{f"{name}Backward": _view for name in ("ReshapeAlias", "Squeeze", "UnsafeView", "View")},
    **{
        f"{name}Backward": _pool
        for name in ("AvgPool2D", "AvgPool3D", "MaxPool2DWithIndices", "MkldnnMaxPool2D")
    },
    "AdaptiveAvgPool2DBackward": _adaptive_pool,
    "AdaptiveMaxPool2DBackward": _adaptive_pool,
    "ConvolutionBackward": _convolution,
    "ConstantPadNdBackward": _zero_pad,
    "PixelShuffleBackward": _pixel_shuffle,
    "PixelUnshuffleBackward": _pixel_unshuffle,
    "ReflectionPad2DBackward": _reflection_pad,
    "ReplicationPad2DBackward": _replication_pad,
    "SliceBackward": _slice,
    "UpsampleNearest2DBackward": _upsample(0, 0),
    "UpsampleBilinear2DBackward": _upsample(0, 1),
    "UpsampleBicubic2DBackward": _upsample(1, 2),
}
