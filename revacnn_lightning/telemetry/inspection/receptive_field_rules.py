"""Which input indices an operation's output depends on, by the name of its autograd node.

A rule handles one dimension of the output, as a negative number: -1 is that of columns, -2 of rows,
-3 of slices, wherever the network has not moved them. Ranges are int arrays (units, 2) of the first
and the last index.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from revacnn_lightning.telemetry.inspection.moved_dimensions import (
    drops_exactly_one_dimension,
    to_signed,
)

__all__ = ["RULES", "RangeRule"]


class RangeRule(Protocol):
    """Maps ranges of an operation's output to ranges of its input."""

    def __call__(
        self, node: Any, dim: int, ends: np.ndarray, input_length: int, output_length: int, /
    ) -> np.ndarray | None:
        """Return the ranges of the input; None if they are unknown. Padding need not be clipped."""


def _of_dimension(values: Any, dim: int) -> int:
    """Return the value for one dimension out of one for each, or of a single one for all."""
    return int(values[dim if len(values) > 1 else 0])


def _of_last(dimensions: int, rule: RangeRule) -> RangeRule:
    """Return the rule of an operation on this many last dimensions; it leaves others alone."""

    def limited(
        node: Any, dim: int, ends: np.ndarray, input_length: int, output_length: int
    ) -> np.ndarray | None:
        return ends if -dim > dimensions else rule(node, dim, ends, input_length, output_length)

    return limited


# ---------------------------------------------------------------------- windows


def _window(ends: np.ndarray, kernel: int, stride: int, padding: int, dilation: int) -> np.ndarray:
    first = ends[:, 0] * stride - padding
    last = ends[:, 1] * stride - padding + dilation * (kernel - 1)
    return np.stack([first, last], axis=1)


def _convolution(
    node: Any, dim: int, ends: np.ndarray, input_length: int, output_length: int
) -> np.ndarray | None:
    weight = node._saved_weight
    if -dim > weight.ndim - 2:  # of the batch, or of channels, which it mixes
        return ends if -dim == weight.ndim else None
    kernel = weight.shape[dim]
    stride, padding, dilation = (
        _of_dimension(values, dim)
        for values in (node._saved_stride, node._saved_padding, node._saved_dilation)
    )
    if not node._saved_transposed:
        return _window(ends, kernel, stride, padding, dilation)
    first = -((dilation * (kernel - 1) - padding - ends[:, 0]) // stride)
    return np.stack([first, (ends[:, 1] + padding) // stride], axis=1)


def _pool(
    node: Any, dim: int, ends: np.ndarray, input_length: int, output_length: int
) -> np.ndarray:
    kernel = _of_dimension(node._saved_kernel_size, dim)
    stride = _of_dimension(node._saved_stride, dim) if len(node._saved_stride) else kernel
    dilation = _of_dimension(getattr(node, "_saved_dilation", (1,)), dim)
    return _window(ends, kernel, stride, _of_dimension(node._saved_padding, dim), dilation)


def _adaptive_pool(
    node: Any, dim: int, ends: np.ndarray, input_length: int, output_length: int
) -> np.ndarray:
    first = ends[:, 0] * input_length // output_length
    last = -((-(ends[:, 1] + 1) * input_length) // output_length) - 1
    return np.stack([first, last], axis=1)


def _upsample(before: int, after: int) -> RangeRule:
    """Return the rule of an interpolation from so many pixels before and after a position."""

    def rule(
        node: Any, dim: int, ends: np.ndarray, input_length: int, output_length: int
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


def _padding_before(node: Any, dim: int) -> int:
    """Return the padding before the first index. The saved pairs begin with the last axis."""
    values = getattr(node, "_saved_pad", None) or node._saved_padding
    index = 2 * (-dim - 1)
    return to_signed(values[index]) if index < len(values) else 0


def _zero_pad(
    node: Any, dim: int, ends: np.ndarray, input_length: int, output_length: int
) -> np.ndarray:
    return ends - _padding_before(node, dim)


def _replication_pad(
    node: Any, dim: int, ends: np.ndarray, input_length: int, output_length: int
) -> np.ndarray:
    return np.clip(ends - _padding_before(node, dim), 0, input_length - 1)


def _reflection_pad(
    node: Any, dim: int, ends: np.ndarray, input_length: int, output_length: int
) -> np.ndarray:
    first, last = (ends - _padding_before(node, dim)).T
    end = input_length - 1
    folded = [np.where((i < 0), -i, np.where(i > end, 2 * end - i, i)) for i in (first, last)]
    lowest, highest = np.minimum(*folded), np.maximum(*folded)
    lowest = np.where((first < 0) & (last >= 0), 0, lowest)
    return np.stack([lowest, np.where((first <= end) & (last > end), end, highest)], axis=1)


def _slice(
    node: Any, dim: int, ends: np.ndarray, input_length: int, output_length: int
) -> np.ndarray:
    shape = node._saved_self_sym_sizes
    if to_signed(node._saved_dim) % len(shape) != len(shape) + dim:
        return ends
    start = to_signed(node._saved_start)
    return (start if start >= 0 else start + input_length) + ends * node._saved_step


# ---------------------------------------------------------------------- reshaping


def _pixel_shuffle(
    node: Any, dim: int, ends: np.ndarray, input_length: int, output_length: int
) -> np.ndarray | None:
    if -dim > 2:
        return None if dim == -3 else ends  # the channels are mixed
    return ends // node._saved_upscale_factor


def _pixel_unshuffle(
    node: Any, dim: int, ends: np.ndarray, input_length: int, output_length: int
) -> np.ndarray | None:
    if -dim > 2:
        return None if dim == -3 else ends
    factor = node._saved_downscale_factor
    return ends * factor + [0, factor - 1]


def _elementwise(
    node: Any, dim: int, ends: np.ndarray, input_length: int, output_length: int
) -> np.ndarray | None:
    """Each output depends on the input at its position, or on the only one if it is broadcast."""
    if input_length == output_length:
        return ends
    return np.zeros_like(ends) if input_length == 1 else None


def _view(
    node: Any, dim: int, ends: np.ndarray, input_length: int, output_length: int
) -> np.ndarray | None:
    """Known only for views that preserve the dimension and those behind it."""
    before, after = node._saved_self_sym_sizes, node._input_metadata[0].shape
    return ends if tuple(before[dim:]) == tuple(after[dim:]) else None


def _other_dimensions(
    node: Any, dim: int, ends: np.ndarray, input_length: int, output_length: int
) -> np.ndarray | None:
    """Known only for operations along another dimension."""
    dimensions = len(node._input_metadata[0].shape)
    if to_signed(node._saved_dim) % dimensions == dim + dimensions:
        return None
    return _elementwise(node, dim, ends, input_length, output_length)


def _squeeze(
    node: Any, dim: int, ends: np.ndarray, input_length: int, output_length: int
) -> np.ndarray | None:
    """Known where one dimension is dropped: `input_dimension` has found the others."""
    if drops_exactly_one_dimension(node):
        return ends
    return _view(node, dim, ends, input_length, output_length)


def _moved(
    node: Any, dim: int, ends: np.ndarray, input_length: int, output_length: int
) -> np.ndarray:
    """Only move the dimension: `input_dimension` says where from."""
    return ends


_ELEMENTWISE = (
    *("Abs", "Add", "Alias", "Clamp", "ClampMax", "ClampMin", "Clone", "Div", "Elu", "Erf", "Exp"),
    *("Expand", "Gelu", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyRelu", "Log"),
    *("LogSigmoid", "Maximum", "Minimum", "Mish", "Mul"),
    *("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "NativeGroupNorm", "NativeDropout"),
    *("NativeLayerNorm", "Neg", "Pow", "PreluKernel", "Relu", "RreluWithNoise", "Rsqrt", "Rsub"),
    *("Sigmoid", "Silu", "Softplus", "Softshrink", "Sqrt", "Sub", "Tanh", "Threshold", "ToCopy"),
    "Where",
)
_OF_LAST: dict[int, dict[str, RangeRule]] = {
    1: {
        "ReflectionPad1DBackward": _reflection_pad,
        "ReplicationPad1DBackward": _replication_pad,
        "UpsampleLinear1DBackward": _upsample(0, 1),
        "UpsampleNearest1DBackward": _upsample(0, 0),
    },
    2: {
        "AdaptiveAvgPool2DBackward": _adaptive_pool,
        "AdaptiveMaxPool2DBackward": _adaptive_pool,
        "AvgPool2DBackward": _pool,
        "MaxPool2DWithIndicesBackward": _pool,
        "MkldnnMaxPool2DBackward": _pool,
        "ReflectionPad2DBackward": _reflection_pad,
        "ReplicationPad2DBackward": _replication_pad,
        "UpsampleBicubic2DBackward": _upsample(1, 2),
        "UpsampleBilinear2DBackward": _upsample(0, 1),
        "UpsampleNearest2DBackward": _upsample(0, 0),
    },
    3: {
        "AdaptiveAvgPool3DBackward": _adaptive_pool,
        "AdaptiveMaxPool3DBackward": _adaptive_pool,
        "AvgPool3DBackward": _pool,
        "MaxPool3DWithIndicesBackward": _pool,
        "MkldnnMaxPool3DBackward": _pool,
        "ReflectionPad3DBackward": _reflection_pad,
        "ReplicationPad3DBackward": _replication_pad,
        "UpsampleNearest3DBackward": _upsample(0, 0),
        "UpsampleTrilinear3DBackward": _upsample(0, 1),
    },
}
RULES: dict[str, RangeRule] = {
    **{f"{name}Backward": _elementwise for name in _ELEMENTWISE},
    **{f"{name}Backward": _other_dimensions for name in ("Cat", "IndexSelect")},
    **{f"{name}Backward": _other_dimensions for name in ("Split", "SplitWithSizes")},
    **{f"{name}Backward": _moved for name in ("Permute", "Select", "Stack", "Transpose")},
    **{f"{name}Backward": _view for name in ("ReshapeAlias", "UnsafeView", "View")},
    **{
        name: _of_last(dimensions, rule)
        for dimensions, rules in _OF_LAST.items()
        for name, rule in rules.items()
    },
    "ConstantPadNdBackward": _zero_pad,
    "ConvolutionBackward": _convolution,
    "PixelShuffleBackward": _pixel_shuffle,
    "PixelUnshuffleBackward": _pixel_unshuffle,
    "SliceBackward": _slice,
    "SqueezeBackward": _squeeze,
    "UnsqueezeBackward": _moved,
}
