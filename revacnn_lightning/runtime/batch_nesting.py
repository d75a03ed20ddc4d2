"""The containers that a batch is nested in: their contents, and copies with other contents."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

__all__ = [
    "children_by_key",
    "copy_if_possible",
    "is_plain_list_or_tuple",
    "leaves",
    "with_children",
]

log = logging.getLogger(__name__)

MAX_DEPTH = 16  # a container that contains itself must not be searched forever


def children_by_key(node: Any) -> dict[Any, Any] | None:
    """Return what a container holds, by key, index or attribute; None for anything else.

    Containers are mappings, lists, tuples, named tuples, dataclasses, classes of the attrs package
    and other objects with tensors, or lists of tensors, as attributes.
    """
    if isinstance(node, (Tensor, np.ndarray, str, bytes, PackedSequence, nn.Module, type)):
        return None
    if isinstance(node, Mapping):
        return dict(node)
    if _is_named_tuple(node):
        return dict(zip(node._fields, node, strict=True))
    if isinstance(node, (list, tuple)):
        return dict(enumerate(node))
    if dataclasses.is_dataclass(node):
        return _attributes(node, [field.name for field in dataclasses.fields(node)])
    if hasattr(type(node), "__attrs_attrs__"):
        return _attributes(node, [field.name for field in type(node).__attrs_attrs__])
    held = getattr(node, "__dict__", None)
    return dict(held) if held and any(map(_holds_tensors, held.values())) else None


def is_plain_list_or_tuple(node: Any) -> bool:
    """Return whether a container is a list or a tuple, but not a named tuple."""
    return (
        isinstance(node, (list, tuple))
        and not _is_named_tuple(node)
        and not isinstance(node, PackedSequence)
    )


def leaves(node: Any) -> Iterator[Any]:
    """Yield everything in nested containers that is not a container itself."""
    return _leaves(node, 0)


def _leaves(node: Any, depth: int) -> Iterator[Any]:
    inner = children_by_key(node) if depth < MAX_DEPTH else None
    if inner is None:
        yield node
        return
    for value in inner.values():
        yield from _leaves(value, depth + 1)


def with_children(node: Any, values: dict[Any, Any]) -> Any:
    """Return a shallow copy of a container with ``values`` in place of what it holds.

    A list or tuple may get fewer elements than it has.

    Raises:
        Exception: a class of the user's cannot be copied.
    """
    if type(node) in (dict, list, tuple):
        return values if type(node) is dict else type(node)(values.values())
    if isinstance(node, MutableMapping):
        return _with_items(node, values)
    if isinstance(node, Mapping):
        return type(node)(values)  # type: ignore[call-arg]
    if _is_named_tuple(node):
        return type(node)._make(values.values())
    if isinstance(node, list):
        shallow = copy.copy(node)
        shallow[:] = values.values()
        return shallow
    if isinstance(node, tuple):
        return type(node)(values.values())
    shallow = copy.copy(node)
    for name, value in values.items():
        object.__setattr__(shallow, name, value)  # also of a frozen dataclass
    return shallow


def copy_if_possible(leaf: Any) -> Any:
    """Return a copy of a leaf that shares no memory with it; the leaf if it cannot be copied.

    A tensor keeps its type, and its copy belongs to no graph.
    """
    if isinstance(leaf, Tensor):
        return leaf.detach().clone().requires_grad_(leaf.requires_grad)
    try:
        return copy.deepcopy(leaf)
    except Exception:  # of the user's class: it holds an open file or a lock
        log.info("Cannot copy a %s of the batch", type(leaf).__name__, exc_info=True)
        return leaf


def _with_items(node: MutableMapping[Any, Any], values: dict[Any, Any]) -> Any:
    shallow = copy.copy(node)
    for key, value in values.items():
        shallow[key] = value
    return shallow


def _attributes(node: Any, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(node, name) for name in names if hasattr(node, name)}


def _is_named_tuple(node: Any) -> bool:
    return isinstance(node, tuple) and hasattr(node, "_fields") and hasattr(node, "_make")


def _holds_tensors(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(each, Tensor) for each in value)
    return isinstance(value, Tensor)
