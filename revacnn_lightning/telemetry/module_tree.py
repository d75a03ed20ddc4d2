"""Walks the modules of a network, several times as fast as the nested generators of torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

__all__ = ["list_named_modules", "list_named_parameters", "list_named_tensors"]


def list_named_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return what ``model.named_modules()`` yields as a list: each module once, in this order."""
    found: list[tuple[str, nn.Module]] = []
    seen: set[int] = set()
    stack: list[tuple[str, nn.Module]] = [("", model)]
    while stack:
        path, module = stack.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        found.append((path, module))
        children = module._modules
        if children:
            prefix = f"{path}." if path else ""
            stack += [
                (prefix + name, child)
                for name, child in reversed(children.items())
                if child is not None
            ]
    return found


def list_named_tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Return each parameter, then each buffer, once, under the first of its names."""
    return _list_tensors(model, ("_parameters", "_buffers"))


def list_named_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return what ``model.named_parameters()`` yields as a list."""
    return _list_tensors(model, ("_parameters",))


def _list_tensors(model: nn.Module, tables: Sequence[str]) -> list[tuple[str, Any]]:
    """Return the tensors in these tables of all modules, each once, table by table."""
    modules = list_named_modules(model)
    tensors: dict[int, tuple[str, Any]] = {}
    for table in tables:
        for path, module in modules:
            for name, tensor in getattr(module, table).items():
                if tensor is not None and id(tensor) not in tensors:
                    tensors[id(tensor)] = (f"{path}.{name}" if path else name), tensor
    return list(tensors.values())
