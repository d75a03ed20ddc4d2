"""Tensors in nested values: arguments and results of a module's forward."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["UnsupportedValueError", "map_leaves", "map_tensors", "tensors_in"]

# Values that a forward does not change.
_CONSTANTS = (
    type(None), bool, int, float, complex, str, bytes, range, type, type(...), enum.Enum,
    np.generic, nn.Module, FunctionType, BuiltinFunctionType, MethodType, torch.Size, torch.dtype,
    torch.device, torch.layout, torch.memory_format,
)  # fmt: skip


class UnsupportedValueError(TypeError):
    """A value that may hold state of its own, so that a second forward must not receive it."""


def map_leaves(value: Any, function: Callable[[Any], Any]) -> Any:
    """Return a copy of nested tuples, lists, dicts, slices and dataclasses with mapped leaves."""

    def map_leaf(leaf: Any) -> Any:
        if isinstance(leaf, slice):
            return slice(*(function(each) for each in (leaf.start, leaf.stop, leaf.step)))
        if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            given = {f.name: getattr(leaf, f.name) for f in dataclasses.fields(leaf) if f.init}
            return dataclasses.replace(leaf, **map_leaves(given, function))
        return function(leaf)

    return tree_map(map_leaf, value)


def map_tensors(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """Return a copy of nested values with mapped tensors.

    Raises:
        UnsupportedValueError: a leaf is neither a tensor nor constant.
    """

    def map_leaf(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return function(leaf)
        if isinstance(leaf, _CONSTANTS):
            return leaf
        raise UnsupportedValueError(f"it receives a {type(leaf).__name__}")

    return map_leaves(value, map_leaf)


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors in nested values, in the order of `map_tensors`."""
    found: list[Tensor] = []
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif isinstance(leaf, slice):
            found += tensors_in([leaf.start, leaf.stop, leaf.step])
        elif dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            found += tensors_in([getattr(leaf, f.name) for f in dataclasses.fields(leaf)])
    return found
