"""The tensors that an operation of torch writes to, according to its schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

__all__ = ["written_tensors"]

# What an operation writes to although its schema does not say so.
_UNDECLARED = {"running_mean", "running_var"}


def written_tensors(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[Tensor]:
    """Yield the tensors among the arguments of an operation that it may write to."""
    for position, name in _written_arguments(func):
        value = args[position] if position < len(args) else kwargs.get(name)
        for tensor in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(tensor, Tensor):
                yield tensor


_WRITTEN: dict[Any, tuple[tuple[int, str], ...]] = {}  # operation -> its arguments that it changes


def _written_arguments(func: Any) -> tuple[tuple[int, str], ...]:
    """Return position and name of each argument that an operation may write to."""
    found = _WRITTEN.get(func)
    if found is None:
        schema = getattr(func, "_schema", None)
        found = () if schema is None else tuple(
            (position, argument.name)
            for position, argument in enumerate(schema.arguments)
            if argument.name in _UNDECLARED
            or (argument.alias_info is not None and argument.alias_info.is_write)
        )  # fmt: skip
        _WRITTEN[func] = found
    return found
