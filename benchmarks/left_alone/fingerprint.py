"""Reduces everything that a training leaves to short strings that are equal if it is identical."""

from __future__ import annotations

import functools
import hashlib
import random
import types
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["differing_paths", "fingerprint", "hash_of"]

MAX_DEPTH = 12
SIMPLE = (str, bytes, int, float, complex, bool, type(None))
# Attributes that belong to Lightning or torch, or that `leftovers` compares.
INTERNAL = {
    "_modules", "_parameters", "_buffers", "_trainer", "_fabric", "_jit_internal_is_scripting",
    "_compiled_call_impl", "_hparams_initial", "_current_fx_name", "trainer",
    "_start_time", "_end_time",  "_last_time_checked",
}  # fmt: skip


def fingerprint(value: Any) -> dict[str, str]:
    """Return path -> hash or text of every value in nested containers, modules and objects."""
    found: dict[str, str] = {}
    _Walk(found).visit(value, "", 0)
    return found


def hash_of(value: Any) -> str:
    """Return one hash of everything in ``value``."""
    text = "\n".join(f"{k}={v}" for k, v in fingerprint(value).items())
    return hashlib.sha1(text.encode()).hexdigest()[:12]


def differing_paths(a: Mapping[str, str], b: Mapping[str, str]) -> list[str]:
    """Return the paths whose values differ, or that only one has."""
    return [path for path in {**a, **b} if a.get(path) != b.get(path)]


class _Walk:
    def __init__(self, found: dict[str, str]) -> None:
        self.found = found
        self.visited: dict[int, Any] = {}  # keeps objects alive, so that no id is used twice

    def visit(self, value: Any, path: str, depth: int) -> None:
        if isinstance(value, SIMPLE):
            self.found[path] = repr(value)
        elif isinstance(value, Tensor):
            self.found[path] = _tensor_hash(value)
        elif isinstance(value, np.ndarray):
            self.found[path] = hashlib.sha1(value.tobytes()).hexdigest()[:12] + str(value.shape)
        elif depth > MAX_DEPTH or id(value) in self.visited:
            self.found[path] = type(value).__name__
        else:
            self.visited[id(value)] = value
            self._visit_object(value, path, depth + 1)

    def _visit_object(self, value: Any, path: str, depth: int) -> None:
        parts = _parts(value)
        if parts is None:
            self.found[path] = type(value).__name__
            return
        self.found[path] = f"{type(value).__name__}[{len(parts)}]"
        for name, part in parts.items():
            self.visit(part, f"{path}/{name}", depth)


def _parts(value: Any) -> dict[str, Any] | None:
    """Return the named parts of an object; None for one that has no state of interest."""
    for kind, parts in PARTS.items():
        if isinstance(value, kind):
            return parts(value)
    if isinstance(value, (type, *FUNCTIONS)) or not hasattr(value, "__dict__"):
        return None
    return {k: v for k, v in vars(value).items() if not _is_internal(k)}


def _is_internal(attribute: str) -> bool:
    return attribute in INTERNAL or "_hooks" in attribute or "dynamo" in attribute


FUNCTIONS = (
    types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType,
    functools.partial,
)  # fmt: skip


def _module_parts(module: nn.Module) -> dict[str, Any]:
    own = {k: v for k, v in vars(module).items() if not _is_internal(k)}
    gradients = {f"{n}.grad": p.grad for n, p in module._parameters.items() if p is not None}
    flags = {f"{n}.flag": p.requires_grad for n, p in module._parameters.items() if p is not None}
    tensors = {**module._parameters, **module._buffers}
    return {**own, **tensors, **gradients, **flags, **module._modules}


def _optimizer_parts(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {"state_dict": optimizer.state_dict()}


PARTS: dict[Any, Callable[[Any], dict[str, Any]]] = {
    torch.jit.ScriptModule: lambda m: dict(m.state_dict()),
    nn.Module: _module_parts,
    torch.optim.Optimizer: _optimizer_parts,
    torch.optim.lr_scheduler.LRScheduler: lambda s: s.state_dict(),
    Mapping: lambda m: {_key(k, i): v for i, (k, v) in enumerate(m.items())},
    (list, tuple, deque): lambda s: {str(i): v for i, v in enumerate(s)},
    (set, frozenset): lambda s: {str(i): v for i, v in enumerate(sorted(map(str, s)))},
    torch.Generator: lambda g: {"state": g.get_state()},
    np.random.Generator: lambda g: {"state": str(g.bit_generator.state)},
    np.random.RandomState: lambda g: {"state": str(g.get_state())},
    random.Random: lambda g: {"state": str(hash(g.getstate()))},
    np.generic: lambda n: {"value": n.item()},
    torch.Size: lambda s: {"size": str(s)},
}


def _key(key: Any, position: int) -> str:
    """Return a key as text; its position if it is an object or the id of one."""
    if isinstance(key, int) and key < 1e9:
        return str(key)
    return key if isinstance(key, str) else f"item {position}"


def _tensor_hash(tensor: Tensor) -> str:
    if nn.parameter.is_lazy(tensor):
        return f"uninitialized {tensor.dtype}"
    name = f"{tensor.dtype}{tuple(tensor.shape)}{'' if tensor.grad_fn is None else 'grad_fn'}"
    data = tensor.detach()
    if data.layout != torch.strided:
        data = data.to_dense()
    data = data.as_subclass(Tensor).cpu()
    content = data.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return f"{hashlib.sha1(content).hexdigest()[:12]} {name}"
