"""Sizes written into the code: integer attributes that count channels.

Many networks keep a number of channels in an attribute and use it in ``forward``:
``torch.split(x, self.width, 1)``, ``x.view(b, self.paths, self.channels, h, w)``,
``out[:, :self.out_channels]``. During a trace such attributes are replaced by integers that
remember where they came from. Where one of them is seen in the arguments of a torch function and
equals the length of a labelled dimension, that is a *use*: the attribute counts these labels. An
edit that changes how many there are has to change the attribute as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from revacnn_lightning.steering.labels import along, dims

if TYPE_CHECKING:
    from revacnn_lightning.steering.tracer import Tracer

__all__ = ["Attribute", "Expression", "SizeMode", "TracedInt", "Use", "remembering"]


class Attribute(NamedTuple):
    """An integer attribute of a module, or one entry of a list or tuple of integers."""

    module: str
    name: str
    entry: int = -1  # -1: the attribute itself

    def __str__(self) -> str:
        path = f"{self.module}.{self.name}" if self.module else self.name
        return path if self.entry < 0 else f"{path}[{self.entry}]"


class Expression(NamedTuple):
    """``constant + Σ factor · attribute``; not ``linear``: some other function of them.

    ``mixed``: an ordinary number is part of it, which may itself have been read off a shape
    (``x.shape[1] // self.groups``), so that it says nothing about how attributes must change.
    """

    terms: tuple[tuple[Attribute, Fraction], ...]
    constant: Fraction = Fraction(0)
    linear: bool = True
    mixed: bool = False

    def value(self, of: Callable[[Attribute], int]) -> Fraction:
        return self.constant + sum((f * of(a) for a, f in self.terms), Fraction(0))

    def plus(self, other: Expression, sign: int = 1) -> Expression:
        terms = dict(self.terms)
        for attribute, factor in other.terms:
            terms[attribute] = terms.get(attribute, Fraction(0)) + sign * factor
        return Expression(
            tuple((a, f) for a, f in terms.items() if f or not self.linear),
            self.constant + sign * other.constant,
            self.linear and other.linear,
            self.mixed or other.mixed or not self.terms or not other.terms,
        )

    def times(self, factor: Fraction) -> Expression:
        terms = tuple((a, f * factor) for a, f in self.terms)
        return Expression(terms, self.constant * factor, self.linear, self.mixed)

    def opaque(self) -> Expression:
        return self._replace(linear=False)


class Use(NamedTuple):
    """``expression`` is how many of ``atoms`` there are."""

    expression: Expression
    atoms: Tensor  # int64, 1-D
    where: str


class TracedInt(int):
    """An integer that remembers which attributes it was computed from."""

    expression: Expression

    def __new__(cls, value: int, expression: Expression) -> TracedInt:
        made = super().__new__(cls, value)
        made.expression = expression
        return made

    def __reduce__(self) -> Any:  # a copy of it is an ordinary number
        return int, (int(self),)

    def _with(self, other: Any, value: Any, combine: Callable[[Expression], Expression]) -> Any:
        if type(value) is not int or not isinstance(other, int):
            return value
        return TracedInt(value, combine(_expression(other)))

    def __add__(self, other: Any) -> Any:
        return self._with(other, int.__add__(self, other), self.expression.plus)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self._with(other, int.__sub__(self, other), lambda e: self.expression.plus(e, -1))

    def __rsub__(self, other: Any) -> Any:
        return self._with(other, int.__rsub__(self, other), lambda e: e.plus(self.expression, -1))

    def __mul__(self, other: Any) -> Any:
        def product(theirs: Expression) -> Expression:
            if not theirs.terms:
                return self.expression.times(theirs.constant)
            return self.expression.plus(theirs).opaque()

        return self._with(other, int.__mul__(self, other), product)

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        def quotient(theirs: Expression) -> Expression:
            if theirs.terms or not theirs.constant or self % int(theirs.constant):
                return self.expression.plus(theirs).opaque()
            return self.expression.times(1 / theirs.constant)

        return self._with(other, int.__floordiv__(self, other), quotient)

    def __rfloordiv__(self, other: Any) -> Any:
        value = int.__rfloordiv__(self, other)
        return self._with(other, value, lambda e: e.plus(self.expression).opaque())

    __hash__ = int.__hash__


def _expression(number: int) -> Expression:
    if isinstance(number, TracedInt):
        return number.expression
    return Expression((), Fraction(number))


# -------------------------------------------------------------------- attributes


# Integers that `surgery.sync_sizes` sets from the shapes of the tensors.
SYNCED = {
    nn.modules.conv._ConvNd: {"in_channels", "out_channels", "groups"},
    nn.Linear: {"in_features", "out_features"},
    nn.modules.batchnorm._NormBase: {"num_features"},
    nn.LayerNorm: {"normalized_shape"},
    nn.GroupNorm: {"num_channels"},
    nn.PReLU: {"num_parameters"},
    nn.Embedding: {"num_embeddings", "embedding_dim"},
}


@contextmanager
def remembering(model: nn.Module) -> Iterator[bool]:
    """Inside, the integer attributes of the model's own classes remember where they are from.

    Yields whether there are any. Afterwards every one is what it was.
    """
    replaced: list[tuple[dict[str, Any], str, Any]] = []
    for path, module in model.named_modules():
        if type(module).__module__.startswith("torch.nn."):
            continue
        skipped = {n for kind, names in SYNCED.items() if isinstance(module, kind) for n in names}
        for name, value in list(vars(module).items()):
            if not name.startswith("_") and name not in skipped:
                traced = _traced(Attribute(path, name), value)
                if traced is not value:
                    replaced.append((vars(module), name, value))
                    vars(module)[name] = traced
    try:
        yield bool(replaced)
    finally:
        for attributes, name, value in replaced:
            attributes[name] = value


def _traced(attribute: Attribute, value: Any) -> Any:
    """The attribute's value as one that remembers; the same object if it counts nothing."""
    if type(value) is int and value > 1:
        return TracedInt(value, Expression(((attribute, Fraction(1)),)))
    if type(value) in (list, tuple) and value and all(type(each) is int for each in value):
        return type(value)(
            _traced(attribute._replace(entry=i), each) for i, each in enumerate(value)
        )
    return value


# -------------------------------------------------------------------- uses


class SizeMode(TorchFunctionMode):
    """Watches the arguments of torch functions for integers that remember."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if _mentions(args) or (kwargs and _mentions(tuple(kwargs.values()))):
            watch = WATCHED.get(getattr(func, "__name__", ""))
            if watch is not None:
                watch(self.tracer, args, kwargs or {}, out)
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


def counted(tracer: Tracer, tensor: Tensor, dim: int) -> Tensor | None:
    """The atoms that the length of one dimension counts; None if it is not labelled.

    Of a component over two dimensions, (groups, channels per group), the last is what edits
    change; every group changes alike, so the first group's atoms stand for all.
    """
    dim %= tensor.ndim
    for component in tracer.labels(tensor):
        said = sorted(dims(component))
        if said and said[-1] == dim and len(said) <= 2:
            for other in said[:-1]:
                component = component.narrow(other, 0, 1)
            return component.reshape(-1)
    return None


def _note(tracer: Tracer, number: Any, atoms: Tensor | None) -> None:
    """``number`` counts ``atoms``."""
    if isinstance(number, TracedInt) and atoms is not None and int(number) == len(atoms):
        expression = number.expression
        if expression.mixed:
            return
        tracer.uses.append(Use(expression, atoms, tracer.where()))
        if expression.linear:
            # All that one number counts has to stay equally many: their filters go together.
            tracer.union(tracer.counted.setdefault(expression, atoms), atoms)


Watch = Callable[["Tracer", tuple[Any, ...], dict[str, Any], Any], None]
WATCHED: dict[str, Watch] = {}


def watch(*names: str) -> Callable[[Watch], Watch]:
    """Register what to look for in calls of these torch functions."""

    def register(function: Watch) -> Watch:
        WATCHED.update(dict.fromkeys(names, function))
        return function

    return register


@watch("view", "reshape", "expand", "unflatten", "broadcast_to")
def _shaped(tracer: Tracer, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Sizes of the result, in its order (of its last dimensions, for unflatten of one)."""
    sizes = [n for n in _leaves((args[1:], list(kwargs.values()))) if isinstance(n, int)]
    if len(sizes) == out.ndim:
        for dim, number in enumerate(sizes):
            _note(tracer, number, counted(tracer, out, dim))
    else:  # unflatten(dim, sizes) and the like
        for number in sizes:
            for dim, size in enumerate(out.shape):
                if isinstance(number, TracedInt) and size == int(number):
                    _note(tracer, number, counted(tracer, out, dim))


@watch("zeros", "ones", "full", "empty", "rand", "randn", "new_zeros", "new_ones", "new_full",
       "new_empty")  # fmt: skip
def _made(tracer: Tracer, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """A tensor made with such a size gets labels of its own, which what it meets will join."""
    numbers = [n for n in _leaves((args, kwargs.get("size", ()))) if isinstance(n, int)]
    components = list(tracer.labels(out))
    for dim, number in enumerate(numbers[: out.ndim]):
        if isinstance(number, TracedInt) and out.shape[dim] == int(number):
            atoms = tracer.free(int(number))
            components.append(along(atoms, out.ndim, dim))
            _note(tracer, number, atoms)
    tracer.label(out, components)


@watch("split", "split_with_sizes", "tensor_split")
def _split(tracer: Tracer, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    sizes = args[1] if len(args) > 1 else next(
        v for k, v in kwargs.items() if k in ("split_size", "split_size_or_sections", "split_sizes")
    )  # fmt: skip
    dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    listed = sizes if isinstance(sizes, (list, tuple)) else [sizes] * len(out)
    for number, part in zip(listed, out, strict=False):
        _note(tracer, number, counted(tracer, part, dim))


@watch("__getitem__")
def _sliced(tracer: Tracer, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
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
            atoms = counted(tracer, x, dim)
            for number in (each.start, each.stop):
                if isinstance(number, TracedInt) and atoms is not None and int(number) >= 0:
                    _note(tracer, number, atoms[: int(number)])
        if each is not None:
            dim += 1


@watch("narrow")
def _narrow(tracer: Tracer, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    x, dim, start, length = (*args, *kwargs.values())[:4]
    atoms = counted(tracer, x, dim)
    if atoms is not None:
        _note(tracer, start, atoms[: int(start)])
        _note(tracer, length, atoms[int(start) : int(start) + int(length)])


@watch("conv2d", "conv1d", "conv3d")
def _convolved(tracer: Tracer, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """A functional depthwise conv: the number of groups counts its channels."""
    x = args[0]
    groups = args[6] if len(args) > 6 else kwargs.get("groups", 1)
    if isinstance(groups, TracedInt) and int(groups) == x.shape[1]:
        _note(tracer, groups, counted(tracer, x, 1))


@watch("layer_norm", "rms_norm")
def _normalised(tracer: Tracer, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    sizes = [n for n in tree_leaves(args[1]) if isinstance(n, int)]
    for i, number in enumerate(sizes):
        _note(tracer, number, counted(tracer, out, out.ndim - len(sizes) + i))
