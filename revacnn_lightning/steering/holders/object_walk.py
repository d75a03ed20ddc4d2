"""Walks the attributes of modules, callbacks and other objects for what may hold the model.

A walk reads `vars` of objects and the entries of containers. It calls no code of the user: no
property, no ``__iter__`` of a data set. Closures are not entered.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer

from revacnn_lightning.steering.computed_tensors import hook_attribute_names
from revacnn_lightning.telemetry.module_tree import list_named_modules

__all__ = ["CopyHolder", "FoundTorchObject", "walk_held_torch_objects"]

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_DEPTH = 6
MAX_OBJECTS = 5000
ATTEMPTS = 10
# Objects of these packages hold no copies of the model, or are found elsewhere: the entries of
# callbacks are passed as holders of their own.
FOREIGN_PACKAGES = sys.stdlib_module_names | {
    "lightning", "lightning_fabric", "lightning_utilities", "numpy", "pandas", "pytorch_lightning",
    "revacnn_lightning", "rich", "torch", "tqdm",
}  # fmt: skip
SIMPLE = (str, bytes, int, float, complex, type(None))
SIMPLE_TYPES = {*SIMPLE, bool}
# What a walk does not enter: the registered parts of a module are read by its own methods.
REGISTERED = frozenset(vars(nn.Module())) | {"_trainer", "_fabric"}


@dataclass(frozen=True)
class CopyHolder:
    """An object outside the model that may hold copies of it, such as a callback.

    Attributes:
        name: the name of the object in messages.
        value: the object.
        pairs: (module of the model, its copy), for copies that only the holder knows.
        needed: modules of the model that the holder uses, so they cannot be removed.
    """

    name: str
    value: object
    pairs: tuple[tuple[nn.Module, nn.Module], ...] = ()
    needed: tuple[nn.Module, ...] = ()


@dataclass(frozen=True)
class FoundTorchObject:
    """A module, an optimizer, a tensor or a container of tensors, and where it was found.

    ``path`` is written as in Python: ``"Ema.shadow['conv.weight']"``.
    """

    path: str
    value: object


def walk_held_torch_objects(
    name: str, value: object, skipped_ids: frozenset[int] = frozenset()
) -> Iterator[FoundTorchObject]:
    """Yield the modules, optimizers and tensors that an object holds in its attributes.

    Attributes of attributes follow later, as do the entries of containers.

    Args:
        name: the name of the object, with which each path begins.
        skipped_ids: the ids of objects that are not entered.
    """
    seen = set(skipped_ids)
    queue = deque([(name, value, 0)])
    while queue and len(seen) < MAX_OBJECTS + len(skipped_ids):
        path, each, depth = queue.popleft()
        if id(each) in seen:
            continue
        seen.add(id(each))
        is_of_tensors = isinstance(each, Tensor) or _is_of_tensors(each)
        if is_of_tensors or isinstance(each, (nn.Module, Optimizer)):
            yield FoundTorchObject(path, each)
        if is_of_tensors:
            continue
        if depth < MAX_DEPTH:
            parts = _parts_of(path, each, is_root=depth == 0)
            queue.extend((p, v, depth + 1) for p, v in parts if not _is_simple(v))


def _is_simple(value: object) -> bool:
    """Return whether a value is a number or text, or a few of them, such as a kernel size."""
    if isinstance(value, (tuple, list)) and len(value) <= 4:
        return all(isinstance(each, SIMPLE) for each in value)
    return isinstance(value, SIMPLE)


def _is_of_tensors(value: object) -> bool:
    """Return whether a value is a dict, list or tuple of tensors, at least one."""
    if not isinstance(value, (dict, list, tuple)) or not value:
        return False
    entries = value.values() if isinstance(value, dict) else value
    return all(isinstance(each, Tensor) for each in _entries(entries))


def _entries(container: Iterable[T]) -> list[T]:
    """Return the first entries of a container that other threads may change at any time."""
    for _ in range(ATTEMPTS):
        with contextlib.suppress(RuntimeError):  # it has changed during the iteration
            return list(islice(container, MAX_OBJECTS))
    log.warning("A container changes all the time; copies of the network in it are not found")
    return []


def _parts_of(path: str, value: object, *, is_root: bool) -> Iterator[tuple[str, object]]:
    if isinstance(value, nn.Module):
        for name, module in list_named_modules(value):
            own = [
                (k, v)
                for k, v in list(vars(module).items())
                if k not in REGISTERED and type(v) not in SIMPLE_TYPES  # nearly all, tested fast
            ]
            parts = [(key, part) for key, part in own if not _is_simple(part)]
            # A pruned weight resembles its original.
            computed = hook_attribute_names(module) if parts else ()
            for key, part in parts:
                if key not in computed:
                    yield ".".join(filter(None, [path, name, key])), part
    elif isinstance(value, dict):
        for key, part in _entries(value.items()):
            yield f"{path}[{key!r}]", part
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        for i, part in enumerate(_entries(value)):
            yield f"{path}[{i}]", part
    elif isinstance(value, Optimizer) or is_root or _is_plain(value):
        for key, part in _attributes_of(value):
            if not (isinstance(value, Optimizer) and key in ("param_groups", "state")):
                yield f"{path}.{key}", part


def _is_plain(value: object) -> bool:
    """Return whether a value is an instance of a class that the user or an add-on has written."""
    if isinstance(value, type):
        return False
    package = type(value).__module__.partition(".")[0]
    return package not in FOREIGN_PACKAGES or type(value).__qualname__ == "SimpleNamespace"


def _attributes_of(value: object) -> Iterator[tuple[str, object]]:
    yield from list((_own_attribute(value, "__dict__") or {}).items())
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for slot in [slots] if isinstance(slots, str) else slots:
            if slot not in ("__dict__", "__weakref__"):
                yield slot, _own_attribute(value, slot)


def _own_attribute(value: object, name: str) -> Any:
    """Return an attribute without calling ``__getattr__`` of the user; None if there is none."""
    try:
        return object.__getattribute__(value, name)
    except AttributeError:
        return None
