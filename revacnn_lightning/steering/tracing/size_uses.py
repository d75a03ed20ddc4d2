"""Where an attribute counts channels: found in the arguments of torch functions.

Where an integer that remembers its attribute (`sizes.py`) is an argument of a torch function and
equals the length of a labelled dimension, that is a *use*: the attribute counts these labels. An
edit that changes how many there are has to change the attribute as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from revacnn_lightning.steering.tracing.labels import along, dims
from revacnn_lightning.steering.tracing.records import SizeUse
from revacnn_lightning.steering.tracing.trace import Trace
from revacnn_lightning.steering.tracing.traced_int import TracedInt

__all__ = ["SizeMode"]


class SizeMode(TorchFunctionMode):
    """Watches the arguments of torch functions for integers that remember."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if _mentions(args) or (kwargs and _mentions(tuple(kwargs.values()))):
            watch = WATCHED.get(getattr(func, "__name__", ""))
            if watch is not None:
                watch(self.trace, args, kwargs or {}, out)
        return out


def _mentions(values: Sequence[Any]) -> bool:
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


def counted(trace: Trace, tensor: Tensor, dim: int) -> Tensor | None:
    """The atoms that the length of one dimension counts; None if it is not labelled.

    Of a component over two dimensions, (groups, channels per group), the last is what edits
    change; every group changes alike, so the first group's atoms stand for all.
    """
    dim %= tensor.ndim
    for component in trace.labels(tensor):
        said = sorted(dims(component))
        if said and said[-1] == dim and len(said) <= 2:
            for other in said[:-1]:
                component = component.narrow(other, 0, 1)
            return component.reshape(-1)
    return None


def _note(trace: Trace, number: Any, atoms: Tensor | None) -> None:
    """``number`` counts ``atoms``."""
    if isinstance(number, TracedInt) and atoms is not None and int(number) == len(atoms):
        expression = number.expression
        if expression.mixed:
            return
        trace.uses.append(SizeUse(expression, atoms, trace.where()))
        if expression.linear:
            # All that one number counts has to stay equally many: their filters go together.
            trace.union(trace.counted.setdefault(expression, atoms), atoms)


InspectLayer = Callable[["Trace", tuple[Any, ...], dict[str, Any], Any], None]
WATCHED: dict[str, InspectLayer] = {}


def watch(*names: str) -> Callable[[InspectLayer], InspectLayer]:
    """Register what to look for in calls of these torch functions."""

    def register(function: InspectLayer) -> InspectLayer:
        WATCHED.update(dict.fromkeys(names, function))
        return function

    return register


@watch("view", "reshape", "expand", "unflatten", "broadcast_to")
def _shaped(trace: Trace, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Sizes of the result, in its order (of its last dimensions, for unflatten of one)."""
    sizes = [n for n in _leaves((args[1:], list(kwargs.values()))) if isinstance(n, int)]
    if len(sizes) == out.ndim:
        for dim, number in enumerate(sizes):
            _note(trace, number, counted(trace, out, dim))
    else:  # unflatten(dim, sizes) and the like
        for number in sizes:
            for dim, size in enumerate(out.shape):
                if isinstance(number, TracedInt) and size == int(number):
                    _note(trace, number, counted(trace, out, dim))


@watch("zeros", "ones", "full", "empty", "rand", "randn", "new_zeros", "new_ones", "new_full",
       "new_empty")  # fmt: skip
def _made(trace: Trace, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """A tensor made with such a size gets labels of its own, which what it meets will join."""
    numbers = [n for n in _leaves((args, kwargs.get("size", ()))) if isinstance(n, int)]
    components = list(trace.labels(out))
    for dim, number in enumerate(numbers[: out.ndim]):
        if isinstance(number, TracedInt) and out.shape[dim] == int(number):
            atoms = trace.free(int(number))
            components.append(along(atoms, out.ndim, dim))
            _note(trace, number, atoms)
    trace.label(out, components)


@watch("split", "split_with_sizes", "tensor_split")
def _split(trace: Trace, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    sizes = args[1] if len(args) > 1 else next(
        v for k, v in kwargs.items() if k in ("split_size", "split_size_or_sections", "split_sizes")
    )  # fmt: skip
    dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    listed = sizes if isinstance(sizes, (list, tuple)) else [sizes] * len(out)
    for number, part in zip(listed, out, strict=False):
        _note(trace, number, counted(trace, part, dim))


@watch("__getitem__")
def _sliced(trace: Trace, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """x[:, :n] and x[:, n:]: n counts what stands before it."""
    x, index = args
    listed = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in [each for each in listed if not isinstance(each, Tensor)]:
        at = next(i for i, each in enumerate(listed) if each is Ellipsis)
        given = sum(each is not None and each is not Ellipsis for each in listed)
        listed[at : at + 1] = [slice(None)] * (x.ndim - given)
    dim = 0
    for each in listed:
        if isinstance(each, slice) and dim < x.ndim:
            atoms = counted(trace, x, dim)
            for number in (each.start, each.stop):
                if isinstance(number, TracedInt) and atoms is not None and int(number) >= 0:
                    _note(trace, number, atoms[: int(number)])
        if each is not None:
            dim += 1


@watch("narrow")
def _narrow(trace: Trace, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    x, dim, start, length = (*args, *kwargs.values())[:4]
    atoms = counted(trace, x, dim)
    if atoms is not None:
        _note(trace, start, atoms[: int(start)])
        _note(trace, length, atoms[int(start) : int(start) + int(length)])


@watch("conv2d", "conv1d", "conv3d")
def _convolved(trace: Trace, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """A functional depthwise conv: the number of groups counts its channels."""
    x = args[0]
    groups = args[6] if len(args) > 6 else kwargs.get("groups", 1)
    if isinstance(groups, TracedInt) and int(groups) == x.shape[1]:
        _note(trace, groups, counted(trace, x, 1))


@watch("layer_norm", "rms_norm")
def _normalised(trace: Trace, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    sizes = [n for n in tree_leaves(args[1]) if isinstance(n, int)]
    for i, number in enumerate(sizes):
        _note(trace, number, counted(trace, out, out.ndim - len(sizes) + i))
