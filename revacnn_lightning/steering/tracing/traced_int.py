"""Integers that remember which attributes of which modules they were computed from.

Many networks keep a number of channels in an attribute and use it in ``forward``:
``torch.split(x, self.width, 1)``, ``x.view(b, self.paths, self.channels, h, w)``,
``out[:, :self.out_channels]``. During a trace such attributes are replaced by integers that
remember where they came from (`uses.py` watches what they are used for).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, NamedTuple

from torch import nn

__all__ = ["LinearExpression", "SizeAttribute", "TracedInt", "remembering"]


class SizeAttribute(NamedTuple):
    """An integer attribute of a module, or one entry of a list or tuple of integers."""

    module: str
    name: str
    entry: int = -1  # -1: the attribute itself

    def __str__(self) -> str:
        path = f"{self.module}.{self.name}" if self.module else self.name
        return path if self.entry < 0 else f"{path}[{self.entry}]"


class LinearExpression(NamedTuple):
    """``constant + Σ factor · attribute``; not ``linear``: some other function of them.

    ``mixed``: an ordinary number is part of it, which may itself have been read off a shape
    (``x.shape[1] // self.groups``), so that it says nothing about how attributes must change.
    """

    terms: tuple[tuple[SizeAttribute, Fraction], ...]
    constant: Fraction = Fraction(0)
    linear: bool = True
    mixed: bool = False

    def value(self, of: Callable[[SizeAttribute], int]) -> Fraction:
        return self.constant + sum((f * of(a) for a, f in self.terms), Fraction(0))

    def plus(self, other: LinearExpression, sign: int = 1) -> LinearExpression:
        terms = dict(self.terms)
        for attribute, factor in other.terms:
            terms[attribute] = terms.get(attribute, Fraction(0)) + sign * factor
        return LinearExpression(
            tuple((a, f) for a, f in terms.items() if f or not self.linear),
            self.constant + sign * other.constant,
            self.linear and other.linear,
            self.mixed or other.mixed or not self.terms or not other.terms,
        )

    def times(self, factor: Fraction) -> LinearExpression:
        terms = tuple((a, f * factor) for a, f in self.terms)
        return LinearExpression(terms, self.constant * factor, self.linear, self.mixed)

    def opaque(self) -> LinearExpression:
        return self._replace(linear=False)


class TracedInt(int):
    """An integer that remembers which attributes it was computed from."""

    expression: LinearExpression

    def __new__(cls, value: int, expression: LinearExpression) -> TracedInt:
        made = super().__new__(cls, value)
        made.expression = expression
        return made

    def __reduce__(self) -> Any:  # a copy of it is an ordinary number
        return int, (int(self),)

    def _with(
        self, other: Any, value: Any, combine: Callable[[LinearExpression], LinearExpression]
    ) -> Any:
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
        def product(theirs: LinearExpression) -> LinearExpression:
            if not theirs.terms:
                return self.expression.times(theirs.constant)
            return self.expression.plus(theirs).opaque()

        return self._with(other, int.__mul__(self, other), product)

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        def quotient(theirs: LinearExpression) -> LinearExpression:
            if theirs.terms or not theirs.constant or self % int(theirs.constant):
                return self.expression.plus(theirs).opaque()
            return self.expression.times(1 / theirs.constant)

        return self._with(other, int.__floordiv__(self, other), quotient)

    def __rfloordiv__(self, other: Any) -> Any:
        value = int.__rfloordiv__(self, other)
        return self._with(other, value, lambda e: e.plus(self.expression).opaque())

    __hash__ = int.__hash__


def _expression(number: int) -> LinearExpression:
    if isinstance(number, TracedInt):
        return number.expression
    return LinearExpression((), Fraction(number))


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
                traced = _traced(SizeAttribute(path, name), value)
                if traced is not value:
                    replaced.append((vars(module), name, value))
                    vars(module)[name] = traced
    try:
        yield bool(replaced)
    finally:
        for attributes, name, value in replaced:
            attributes[name] = value


def _traced(attribute: SizeAttribute, value: Any) -> Any:
    """The attribute's value as one that remembers; the same object if it counts nothing."""
    if type(value) is int and value > 1:
        return TracedInt(value, LinearExpression(((attribute, Fraction(1)),)))
    if type(value) in (list, tuple) and value and all(type(each) is int for each in value):
        return type(value)(
            _traced(attribute._replace(entry=i), each) for i, each in enumerate(value)
        )
    return value
