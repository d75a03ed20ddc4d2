"""Integers that track which module attributes they were computed from.

Many networks keep a number of channels in an attribute and use it in ``forward``:
``torch.split(x, self.width, 1)``, ``x.view(b, self.paths, self.channels, h, w)``,
``out[:, :self.out_channels]``. During a trace such attributes are replaced by `TracedInt`s, whose
uses `size_uses.py` records. Where attention splits channels into heads, so are the sizes that the
model reads from shapes: ``b, c, h, w = x.shape``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, NamedTuple

from torch import nn

from revacnn_lightning.telemetry.module_tree import list_named_modules

__all__ = [
    "LinearExpression",
    "SizeAttribute",
    "SizeReadFromShape",
    "SizeSource",
    "TracedInt",
    "temporary_traced_ints",
]


class SizeAttribute(NamedTuple):
    """An integer attribute of a module, or one entry of a list or tuple of integers."""

    module: str
    name: str
    entry: int = -1  # -1: the attribute itself

    def __str__(self) -> str:
        path = f"{self.module}.{self.name}" if self.module else self.name
        return path if self.entry < 0 else f"{path}[{self.entry}]"


class SizeReadFromShape(NamedTuple):
    """A size that was read from the shape of a tensor; it follows the number of its channels.

    ``number`` is the index in `Trace.shape_sizes`.
    """

    number: int
    size: int

    def __str__(self) -> str:
        return f"the size {self.size} of a tensor"


SizeSource = SizeAttribute | SizeReadFromShape


class LinearExpression(NamedTuple):
    """``constant + Σ factor · attribute``. Sizes that are read from shapes count as attributes.

    Attributes:
        is_linear: False if the number is some other function of the attributes in ``terms``.
        has_untraced_part: an ordinary number was added. It may have been read from a shape
            (``x.shape[1] // self.groups``), so nothing follows for how attributes must change.
        divisors: attributes that the number was divided by, which count groups and do not change.
    """

    terms: tuple[tuple[SizeSource, Fraction], ...]
    constant: Fraction = Fraction(0)
    is_linear: bool = True
    has_untraced_part: bool = False
    divisors: tuple[SizeSource, ...] = ()

    def value(self, of: Callable[[SizeSource], int]) -> Fraction:
        """Return the value for the attribute values that ``of`` returns."""
        return self.constant + sum((f * of(a) for a, f in self.terms), Fraction(0))

    def plus(self, other: LinearExpression, sign: int = 1) -> LinearExpression:
        """Return the sum (``sign`` -1: the difference)."""
        terms = dict(self.terms)
        for attribute, factor in other.terms:
            terms[attribute] = terms.get(attribute, Fraction(0)) + sign * factor
        return LinearExpression(
            tuple((a, f) for a, f in terms.items() if f or not self.is_linear),
            self.constant + sign * other.constant,
            self.is_linear and other.is_linear,
            self.has_untraced_part or other.has_untraced_part or not self.terms or not other.terms,
            tuple(dict.fromkeys((*self.divisors, *other.divisors))),
        )

    def times(self, factor: Fraction) -> LinearExpression:
        """Return the product with a constant."""
        terms = tuple((a, f * factor) for a, f in self.terms)
        return self._replace(terms=terms, constant=self.constant * factor)

    def divided_by(self, divisor: LinearExpression, value: int) -> LinearExpression | None:
        """Return the quotient of an attribute and another, whose value stays; else None."""
        is_known = self.is_linear and divisor.is_linear and not self.has_untraced_part
        sources = [source for source, _ in (*self.terms, *divisor.terms)]
        if not is_known or not all(isinstance(source, SizeAttribute) for source in sources):
            return None
        if len(divisor.terms) != 1 or divisor.has_untraced_part:
            return None
        ((attribute, _),) = divisor.terms
        if attribute in dict(self.terms):
            return None
        return self.times(Fraction(1, value))._replace(divisors=(*self.divisors, attribute))

    def as_nonlinear(self) -> LinearExpression:
        """Return the expression marked as not linear."""
        return self._replace(is_linear=False)


class TracedInt(int):
    """An integer that tracks which attributes it was computed from."""

    expression: LinearExpression

    def __new__(cls, value: int, expression: LinearExpression) -> TracedInt:
        number = super().__new__(cls, value)
        number.expression = expression
        return number

    def __reduce__(self) -> Any:  # copies are ordinary numbers
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
        def product(factor: LinearExpression) -> LinearExpression:
            if not factor.terms:
                return self.expression.times(factor.constant)
            return self.expression.plus(factor).as_nonlinear()

        return self._with(other, int.__mul__(self, other), product)

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        def quotient(divisor: LinearExpression) -> LinearExpression:
            opaque = self.expression.plus(divisor).as_nonlinear()
            if int.__mod__(self, int(other)):
                return opaque
            if divisor.terms:
                return self.expression.divided_by(divisor, int(other)) or opaque
            return self.expression.times(1 / divisor.constant)

        return self._with(other, int.__floordiv__(self, other), quotient)

    def __rfloordiv__(self, other: Any) -> Any:
        value = int.__rfloordiv__(self, other)
        return self._with(other, value, lambda e: e.plus(self.expression).as_nonlinear())

    __hash__ = int.__hash__


def _expression(number: int) -> LinearExpression:
    if isinstance(number, TracedInt):
        return number.expression
    return LinearExpression((), Fraction(number))


# -------------------------------------------------------------------- attributes


# Attributes that are set from the shapes of tensors after an edit (`update_size_attributes`).
SYNCED: dict[type[nn.Module], set[str]] = {
    nn.modules.conv._ConvNd: {"in_channels", "out_channels", "groups"},
    nn.Linear: {"in_features", "out_features"},
    nn.modules.batchnorm._NormBase: {"num_features"},
    nn.LayerNorm: {"normalized_shape"},
    nn.GroupNorm: {"num_channels", "num_groups"},
    nn.PReLU: {"num_parameters"},
    nn.RNNBase: {"input_size"},
    nn.RNNCellBase: {"input_size"},
    nn.Embedding: {"num_embeddings", "embedding_dim"},
    nn.MultiheadAttention: {"embed_dim", "kdim", "vdim", "head_dim"},
}
if hasattr(nn, "RMSNorm"):
    SYNCED[nn.RMSNorm] = {"normalized_shape"}


@contextmanager
def temporary_traced_ints(model: nn.Module) -> Iterator[bool]:
    """Replace the integer attributes of the model's own classes by `TracedInt`s.

    Yields whether there are any. Afterwards the original values are restored.
    """
    replaced: list[tuple[dict[str, Any], str, Any]] = []
    for path, module in list_named_modules(model):
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
    """Return the value as `TracedInt`s; the same object if it cannot be a number of channels."""
    if type(value) is int and value > 1:
        return TracedInt(value, LinearExpression(((attribute, Fraction(1)),)))
    if type(value) in (list, tuple) and value and all(type(each) is int for each in value):
        return type(value)(
            _traced(attribute._replace(entry=i), each) for i, each in enumerate(value)
        )
    return value
