"""Restores Python objects: modules, hooks, attributes, containers and random generators."""

from __future__ import annotations

import functools
import operator
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset

from revacnn_lightning.telemetry.module_tree import list_named_modules

__all__ = ["ObjectState"]

MAX_DEPTH = 5  # containers and objects below an attribute of a module
MAX_OBJECTS = 20_000  # of all modules together
MAX_ENTRIES = 100_000  # of a container; of a longer one, only what is appended is removed again
MAX_ARRAY_BYTES = 1 << 20  # larger NumPy arrays are not copied

# Objects of these packages belong to the training, to the libraries or to this package.
_FOREIGN = {"lightning", "lightning_fabric", "pytorch_lightning", "revacnn_lightning", "torch"}
_ATOMS: set[type] = {
    type(None), bool, int, float, complex, str, bytes, type, torch.Size, torch.dtype, torch.device,
    type(len), range, slice,
}  # fmt: skip
_CONTAINERS: set[type] = {dict, OrderedDict, list, set, deque}


class ObjectState:
    """The objects that a forward of a model or an item of a dataset may change.

    These are the attributes of every module, which include its parameters, buffers, submodules and
    hooks; the contents of lists, dicts, sets and deques in them; the attributes of other objects of
    the user's own classes; variables of the functions that are registered as hooks; and the states
    of random generators. `restore` restores all of them in place, by identity.

    Args:
        root: the model, or the dataset. Of a dataset, objects of all classes are restored; of a
            model only those whose class is defined where the classes of its modules are, because
            another thread may use the objects of libraries.

    Attributes:
        modules: the modules of the model, and those that attributes hold without registration.
        tensors: the tensors found.
    """

    def __init__(self, root: Any) -> None:
        self.modules: list[nn.Module] = []
        self.tensors: list[Tensor] = []
        self._seen: dict[int, Any] = {}  # the values are references that keep the ids unique
        self._contents: dict[int, tuple[Any, Any, int]] = {}  # by id: container, content, depth
        self._empty: list[Any] = []
        self._special: list[tuple[Any, int]] = []  # objects with an undo of their own, and depth
        self._undo: list[Callable[[], object]] = []
        self._pending: deque[tuple[Any, int]] = deque()
        self._root = root
        self._is_dataset = not isinstance(root, nn.Module)
        self._packages: set[str] = set()
        if self._is_dataset:
            self._seen[id(root)] = root
            self._visit_object(root, 0)
        else:
            self._add_registered_modules()
        self._visit_pending()

    def refresh(self) -> None:
        """Adopt what has changed since `restore`, as if the state was captured now.

        It compares what is known, and visits only what is new: an edit changes a few attributes
        between its forwards.
        """
        changed = [
            (container, depth)
            for container, content, depth in self._contents.values()
            if not _is_unchanged(container, content)
        ]
        if changed and not self._is_dataset:
            self._add_registered_modules()
        for container, depth in changed:
            self._add_container(container, depth)
        if any(self._empty):
            filled = [container for container in self._empty if container]
            self._empty = [container for container in self._empty if not container]
            self._pending.extend((container, 1) for container in filled)
        self._undo.clear()
        special, self._special = self._special, []
        for value, depth in special:
            self._visit_object(value, depth)
        self._visit_pending()

    def restore(self) -> None:
        """Give every object the contents it had."""
        for container, content, _ in self._contents.values():
            if not _is_unchanged(container, content):
                _set_content(container, content)
        for container in self._empty:
            if container:
                container.clear()
        for undo in self._undo:
            undo()

    # ---------------------------------------------------------------- what is found

    def _visit_pending(self) -> None:
        while self._pending and len(self._seen) < MAX_OBJECTS:
            value, depth = self._pending.popleft()
            self._visit(value, depth)

    def _add_registered_modules(self) -> None:
        """Add all modules of the model with their tensors, whatever the limits of a visit."""
        registered = [module for _, module in list_named_modules(self._root)]
        self._packages = {_package(type(module)) for module in registered} - _FOREIGN
        for module in registered:
            if id(module) not in self._seen:
                self._add_module(module)
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                if tensor is not None:
                    self._add_tensor(tensor)

    def _add_module(self, module: nn.Module) -> None:
        self._seen[id(module)] = module
        self.modules.append(module)
        self._add_container(vars(module), 0)

    def _add_tensor(self, tensor: Tensor) -> None:
        if id(tensor) not in self._seen:
            self._seen[id(tensor)] = tensor
            self.tensors.append(tensor)

    def _add_container(self, container: Any, depth: int) -> None:
        """Copy the references that a container holds, and visit them later."""
        if len(container) > MAX_ENTRIES:
            self._contents[id(container)] = container, len(container), depth
            return
        is_dict = isinstance(container, dict)
        content = dict(container) if is_dict else list(container)
        self._contents[id(container)] = container, content, depth
        self._visit_later(container.values() if is_dict else container, depth + 1)

    def _visit_later(self, values: Iterable[Any], depth: int) -> None:
        if depth > MAX_DEPTH:
            return
        for value in values:
            kind = type(value)
            if kind in _ATOMS:
                continue
            if kind in _CONTAINERS and not value:  # most attributes of modules are empty dicts
                self._empty.append(value)
            elif id(value) not in self._seen:
                self._pending.append((value, depth))

    def _visit(self, value: Any, depth: int) -> None:
        if id(value) in self._seen:
            return
        if isinstance(value, Tensor):
            self._add_tensor(value)
        elif isinstance(value, nn.Module):
            self._add_module(value)
        elif isinstance(value, (dict, list, set, deque)):
            self._seen[id(value)] = value
            self._add_container(value, depth)
        elif isinstance(value, tuple):
            self._seen[id(value)] = value
            if len(value) <= MAX_ENTRIES:
                self._visit_later(value, depth + 1)
        else:
            self._seen[id(value)] = value
            self._visit_object(value, depth)

    def _visit_object(self, value: Any, depth: int) -> None:
        generator_undo = _generator_undo(value)
        if generator_undo is not None:
            self._add_undo(value, depth, generator_undo)
        elif isinstance(value, np.ndarray):
            if value.nbytes <= MAX_ARRAY_BYTES and value.flags.writeable:
                self._add_undo(value, depth, functools.partial(np.copyto, value, value.copy()))
        elif isinstance(value, functools.partial):
            self._visit_later((value.func, value.args, value.keywords), depth + 1)
        elif isinstance(value, MethodType):
            self._visit_later((value.__self__, value.__func__), depth + 1)
        elif isinstance(value, FunctionType):
            self._visit_closure(value, depth)
        elif self._is_of_the_user(value):
            self._add_container(vars(value), depth)

    def _add_undo(self, value: Any, depth: int, *undo: Callable[[], object]) -> None:
        """Restore an object by these functions; `refresh` visits it again."""
        self._special.append((value, depth))
        self._undo += undo

    def _visit_closure(self, function: FunctionType, depth: int) -> None:
        """Restore the variables of an enclosing function, where hooks collect what they see."""
        if function.__module__ and function.__module__.partition(".")[0] in _FOREIGN:
            return
        undo: list[Callable[[], object]] = []
        for cell in function.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
            undo.append(functools.partial(setattr, cell, "cell_contents", content))
            self._visit_later((content,), depth + 1)
        self._add_undo(function, depth, *undo)

    def _is_of_the_user(self, value: Any) -> bool:
        """Return whether the attributes of an object are restored; see the class."""
        kind = type(value)
        if not hasattr(value, "__dict__") or isinstance(value, (type, ModuleType, Optimizer)):
            return False
        if self._is_dataset and isinstance(value, Dataset):
            return True
        is_known = self._is_dataset or _package(kind) in self._packages
        return is_known and not any(_package(base) in _FOREIGN for base in kind.__mro__)


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _generator_undo(value: Any) -> Callable[[], object] | None:
    """Return a function that restores the state of a random generator; None if it is none."""
    if isinstance(value, torch.Generator):
        return functools.partial(value.set_state, value.get_state())
    if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        return functools.partial(value.setstate, value.getstate())
    if isinstance(value, np.random.RandomState):
        return functools.partial(value.set_state, value.get_state(legacy=False))
    if isinstance(value, np.random.Generator):
        bits: Any = value.bit_generator
        return functools.partial(setattr, bits, "state", bits.state)
    return None


def _is_unchanged(container: Any, content: Any) -> bool:
    """Return whether a container holds the very same objects as before, in the same order."""
    if isinstance(content, int):
        return len(container) <= content
    if len(container) != len(content):
        return False
    if isinstance(container, dict):
        same_values = all(map(operator.is_, container.values(), content.values()))
        return same_values and all(map(operator.is_, container, content))
    if isinstance(container, set):
        return {id(each) for each in container} == {id(each) for each in content}
    return all(map(operator.is_, container, content))


def _set_content(container: Any, content: Any) -> None:
    """Give a container its content back, by the methods of its built-in base class."""
    kind: Any = next(k for k in (OrderedDict, dict, list, set, deque) if isinstance(container, k))
    if isinstance(content, int):
        while kind in (list, deque) and len(container) > content:
            kind.pop(container)
    elif kind is list:
        list.__setitem__(container, slice(None), content)
    else:
        kind.clear(container)
        kind.extend(container, content) if kind is deque else kind.update(container, content)
