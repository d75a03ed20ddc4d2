"""What the user's classes override or call of Lightning, without importing Lightning."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

__all__ = ["find_caller", "overrides"]

# Where Lightning defines the hooks that do nothing by themselves.
BASES = (
    "lightning.core.hooks", "lightning.core.module", "lightning.callbacks.callback",
    "lightning.pytorch.core.hooks", "lightning.pytorch.core.module",
    "lightning.pytorch.callbacks.callback",
)  # fmt: skip
STATIC = (staticmethod, classmethod)
LIBRARIES = ("lightning", "pytorch_lightning", "lightning_fabric", "torch", "revacnn_lightning")


def overrides(value: Any, name: str) -> bool:
    """Return whether a class of the user, or the object itself, defines a hook."""
    if name in vars(value):
        return True
    kind = next((each for each in type(value).__mro__ if name in vars(each)), None)
    return kind is not None and not kind.__module__.endswith(BASES)


def find_caller(value: Any, name: str) -> str:
    """Return a method of the user's classes that calls a function of this name; "" without."""
    for kind in type(value).__mro__:
        if kind.__module__.split(".")[0] in LIBRARIES:
            continue
        for method, member in vars(kind).items():
            function = member.__func__ if isinstance(member, STATIC) else member
            if not isinstance(function, FunctionType):
                continue
            codes = _codes(inspect.unwrap(function).__code__)
            if any(name in code.co_names for code in codes):
                return f"{kind.__name__}.{method}"
    return ""


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yield the code of a function and of those that it defines."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
