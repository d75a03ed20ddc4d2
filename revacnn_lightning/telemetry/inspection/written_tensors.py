"""The tensors that an operation of torch writes to, according to its schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

__all__ = ["written_tensors"]

# What an operation writes to although its schema does not say so.
_UNDECLARED = {"running_mean", "running_var"}

_WRITTEN: dict[Any, tuple[tuple[int, str], ...]] = {}  # operation -> its arguments that it changes


def written_tensors(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[Tensor]:
    """Return the tensors among the arguments of an operation that it may write to."""
    arguments = _WRITTEN.get(func)
    if arguments is None:
        arguments = _WRITTEN[func] = _written_arguments(func)
    if not arguments:  # most operations
        return ()
    found: list[Tensor] = []
    for position, name in arguments:
        value = args[position] if position < len(args) else kwargs.get(name)
        values = value if isinstance(value, (list, tuple)) else (value,)
        found += [each for each in values if isinstance(each, Tensor)]
    return found


def _written_arguments(func: Any) -> tuple[tuple[int, str], ...]:
    """Return position and name of each argument that an operation may write to."""
    schema = getattr(func, "_schema", None)
    return () if schema is None else tuple(
        (position, argument.name)
        for position, argument in enumerate(schema.arguments)
        if argument.name in _UNDECLARED
        or (argument.alias_info is not None and argument.alias_info.is_write)
    )  # fmt: skip
