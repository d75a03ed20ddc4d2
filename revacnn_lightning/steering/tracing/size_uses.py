"""Finds where module attributes count channels, in the arguments of torch functions.

If a `TracedInt` is an argument of a torch function and equals the length of a labeled dimension,
its attribute counts the channels of that dimension. An edit that changes their number has to change
the attribute as well (`planning/size_attributes.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from revacnn_lightning.steering.tracing.labels import label_along, labeled_dims
from revacnn_lightning.steering.tracing.records import AttributesEqualToChannelCount
from revacnn_lightning.steering.tracing.trace import Trace
from revacnn_lightning.steering.tracing.traced_int import TracedInt

__all__ = ["SizeUseMode"]

# (trace, args, kwargs, output of a torch function) -> records the uses of traced integers
UseFinder = Callable[[Trace, tuple[Any, ...], dict[str, Any], Any], None]
_FINDERS: dict[str, UseFinder] = {}


class SizeUseMode(TorchFunctionMode):
    """Records every torch function whose arguments contain a `TracedInt`.

    Args:
        trace: the trace that records them.
        reads_shapes: whether sizes that are read from shapes are traced as well.
    """

    def __init__(self, trace: Trace, *, reads_shapes: bool = False) -> None:
        super().__init__()
        self.trace = trace
        self._reads_shapes = reads_shapes

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if self._reads_shapes and func in SHAPE_READERS:
            with torch._C.DisableTorchFunctionSubclass():
                return _traced_shape(self.trace, args[0], args[1:], kwargs or {}, out)
        if _contain_traced(args) or (kwargs and _contain_traced(tuple(kwargs.values()))):
            find = _FINDERS.get(getattr(func, "__name__", ""))
            if find is not None:
                find(self.trace, args, kwargs or {}, out)
        elif self._reads_shapes and _FINDERS.get(getattr(func, "__name__", "")) is _shaped:
            _fix_heads_of_written_sizes(self.trace, args, kwargs or {}, out)
        return out


SHAPE_READERS: tuple[Any, ...] = (Tensor.size, Tensor.shape.__get__)  # type: ignore[attr-defined]


def _traced_shape(
    trace: Trace, tensor: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> Any:
    """Return a shape, or one size of it, with the numbers of channels traced."""
    traced = {
        min(dims): trace.read_size(label.reshape(-1))
        for label in trace.labels(tensor)
        for dims in [labeled_dims(label)]
        if len(dims) == 1
    }
    if isinstance(out, torch.Size):
        return torch.Size([traced.get(dim, size) for dim, size in enumerate(out)])
    dim = args[0] if args else kwargs["dim"]
    return traced.get(dim % tensor.ndim, out)


def _contain_traced(values: Sequence[Any]) -> bool:
    for value in values:
        if isinstance(value, TracedInt):
            return True
        if isinstance(value, (tuple, list, slice)) and any(
            isinstance(leaf, TracedInt) for leaf in _leaves(value)
        ):
            return True
    return False


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, slice):
        yield from (value.start, value.stop)
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from _leaves(each)
    else:
        yield value


def _counted_channels(trace: Trace, tensor: Tensor, dim: int) -> Tensor | None:
    """Return the channels that the length of one dimension counts; None if it is not labeled.

    Of a label over several dimensions, such as (groups, channels per group), edits change the last
    one. All groups change alike, so the channels of the first group are returned.
    """
    dim %= tensor.ndim
    for label in trace.labels(tensor):
        dims = sorted(labeled_dims(label))
        if dims and dims[-1] == dim and len(dims) <= 3:
            for other in dims[:-1]:
                label = label.narrow(other, 0, 1)
            return label.reshape(-1)
    return None


def _record(trace: Trace, number: Any, channels: Tensor | None) -> None:
    """Record that ``number`` counts ``channels``, if it is traced and equal to their number."""
    if isinstance(number, TracedInt) and channels is not None and int(number) == len(channels):
        expression = number.expression
        if expression.has_untraced_part:
            return
        trace.size_uses.append(AttributesEqualToChannelCount(expression, channels, trace.where()))
        if expression.is_linear:
            # Everything that one number counts must keep equal lengths.
            first = trace.first_counted.setdefault(expression, channels)
            if not torch.equal(first, channels):
                trace.record_equal_parts((first, channels))


def _finder(*names: str) -> Callable[[UseFinder], UseFinder]:
    """Register the finder of these torch functions."""

    def register(function: UseFinder) -> UseFinder:
        _FINDERS.update(dict.fromkeys(names, function))
        return function

    return register


@_finder("view", "reshape", "expand", "unflatten", "broadcast_to")
def _shaped(trace: Trace, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Sizes of the result in order, or of some of its dimensions for unflatten."""
    sizes = [n for n in _leaves((args[1:], list(kwargs.values()))) if isinstance(n, int)]
    if len(sizes) == out.ndim:
        for dim, number in enumerate(sizes):
            _record(trace, number, _counted_channels(trace, out, dim))
    else:  # unflatten(dim, sizes) and the like
        for number in sizes:
            for dim, size in enumerate(out.shape):
                if isinstance(number, TracedInt) and size == int(number):
                    _record(trace, number, _counted_channels(trace, out, dim))
    _fix_heads_of_written_sizes(trace, args, kwargs, out)


def _fix_heads_of_written_sizes(
    trace: Trace, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """Refuse edits of heads whose size is a number in the code, which would not change along."""
    is_unflatten = len(args) > 2 and isinstance(args[2], (tuple, list))  # x.unflatten(dim, sizes)
    given = args[2:] if is_unflatten else args[1:]
    sizes = [n for n in _leaves((given, list(kwargs.values()))) if isinstance(n, int)]
    if -1 in sizes:  # computed from the rest
        return
    traced = {int(number) for number in sizes if isinstance(number, TracedInt)}
    for label in trace.labels(out):
        dims = sorted(labeled_dims(label))
        if len(dims) == 3 and out.shape[dims[-1]] not in traced:
            where = trace.where()
            trace.fix(label, f"are split into attention heads by sizes that are written in {where}")


@_finder("zeros", "ones", "full", "empty", "rand", "randn", "new_zeros", "new_ones", "new_full",
         "new_empty")  # fmt: skip
def _created(trace: Trace, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """A tensor of such a size gets channels of its own, coupled later to those it meets."""
    numbers = [n for n in _leaves((args, kwargs.get("size", ()))) if isinstance(n, int)]
    labels = list(trace.labels(out))
    for dim, number in enumerate(numbers[: out.ndim]):
        if isinstance(number, TracedInt) and out.shape[dim] == int(number):
            channels = trace.free_channels(int(number))
            labels.append(label_along(channels, out.ndim, dim))
            _record(trace, number, channels)
    trace.set_labels(out, labels)


@_finder("split", "split_with_sizes", "tensor_split")
def _split(trace: Trace, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    sizes = args[1] if len(args) > 1 else next(
        v for k, v in kwargs.items() if k in ("split_size", "split_size_or_sections", "split_sizes")
    )  # fmt: skip
    dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    listed = sizes if isinstance(sizes, (list, tuple)) else [sizes] * len(out)
    for number, part in zip(listed, out, strict=False):
        _record(trace, number, _counted_channels(trace, part, dim))


@_finder("__getitem__")
def _sliced(trace: Trace, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """x[:, :n] and x[:, n:]: n counts the channels before it."""
    x, index = args
    listed = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in [each for each in listed if not isinstance(each, Tensor)]:
        at = next(i for i, each in enumerate(listed) if each is Ellipsis)
        given = sum(each is not None and each is not Ellipsis for each in listed)
        listed[at : at + 1] = [slice(None)] * (x.ndim - given)
    dim = 0
    for each in listed:
        if isinstance(each, slice) and dim < x.ndim:
            channels = _counted_channels(trace, x, dim)
            for number in (each.start, each.stop):
                if isinstance(number, TracedInt) and channels is not None and int(number) >= 0:
                    _record(trace, number, channels[: int(number)])
        if each is not None:
            dim += 1


@_finder("narrow")
def _narrow(trace: Trace, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    x, dim, start, length = (*args, *kwargs.values())[:4]
    channels = _counted_channels(trace, x, dim)
    if channels is not None:
        _record(trace, start, channels[: int(start)])
        _record(trace, length, channels[int(start) : int(start) + int(length)])


@_finder("conv2d", "conv1d", "conv3d")
def _convolved(trace: Trace, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """The number of groups of a functional depthwise conv counts its channels."""
    x = args[0]
    groups = args[6] if len(args) > 6 else kwargs.get("groups", 1)
    if isinstance(groups, TracedInt) and int(groups) == x.shape[1]:
        _record(trace, groups, _counted_channels(trace, x, 1))


@_finder("layer_norm", "rms_norm")
def _normalized(trace: Trace, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    sizes = [n for n in tree_leaves(args[1]) if isinstance(n, int)]
    for i, number in enumerate(sizes):
        _record(trace, number, _counted_channels(trace, out, out.ndim - len(sizes) + i))
