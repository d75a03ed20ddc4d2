"""Finds modules with the same structure: the same classes, names and shapes in the whole tree."""

from __future__ import annotations

from collections import defaultdict

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.prune import BasePruningMethod

__all__ = [
    "has_identifying_weights",
    "is_inside",
    "is_overlapping",
    "is_pruned",
    "modules_by_structure",
    "structure_id",
]


def structure_id(module: nn.Module, known: dict[int, int] | None = None) -> int:
    """Return a number that only modules of the same structure have.

    It covers the class, and the names and shapes of parameters, buffers and children. Device, type,
    values and hooks may differ.

    Args:
        known: the structures found so far, by id of the module; the new ones are added.
    """
    known = {} if known is None else known
    if id(module) not in known:
        kind = type(module)
        tensors = [*module._parameters.items(), *module._buffers.items()]
        children = module._modules.items()
        known[id(module)] = hash(
            (
                f"{kind.__module__}.{kind.__qualname__}",
                tuple((name, _shape(tensor)) for name, tensor in tensors),
                tuple((n, structure_id(c, known)) for n, c in children if c is not None),
            )
        )
    return known[id(module)]


def _shape(tensor: Tensor | None) -> tuple[int, ...] | None:
    return None if tensor is None or is_lazy(tensor) else tuple(tensor.shape)


def modules_by_structure(model: nn.Module) -> dict[int, list[str]]:
    """Return structure -> the names of the model's modules that have it."""
    known: dict[int, int] = {}
    names = defaultdict(list)
    for name, module in model.named_modules():
        names[structure_id(module, known)].append(name)
    return names


def has_identifying_weights(module: nn.Module) -> bool:
    """Return whether a module has a parameter whose values identify it: not a gain or a bias."""
    return any(not is_lazy(p) and p.ndim > 1 for p in module.parameters())


def is_inside(name: str, module: str) -> bool:
    """Return whether a dotted name is that of a module or of a part of it."""
    return module in ("", name) or name.startswith(f"{module}.")


def is_overlapping(a: str, b: str) -> bool:
    """Return whether two modules are the same or one is part of the other."""
    return is_inside(a, b) or is_inside(b, a)


def is_pruned(module: nn.Module) -> bool:
    """Return whether `torch.nn.utils.prune` computes a parameter of this very module."""
    hooks = module._forward_pre_hooks.values()
    return any(isinstance(hook, BasePruningMethod) for hook in hooks)
