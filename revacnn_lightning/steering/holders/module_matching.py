"""Finds modules with the same structure: the same classes, names and shapes in the whole tree."""

from __future__ import annotations

from collections import defaultdict

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.prune import BasePruningMethod

__all__ = [
    "are_modules_overlapping",
    "has_identifying_weights",
    "is_inside_module",
    "is_pruned",
    "names_by_structure",
    "structure_hash",
]


def structure_hash(module: nn.Module, known_hashes: dict[int, int] | None = None) -> int:
    """Return a number that only modules of the same structure have.

    It covers the class, and the names and shapes of parameters, buffers and children. Device, type,
    values and hooks may differ.

    Args:
        known_hashes: the hashes computed so far, by id of the module; the new ones are added.
    """
    known_hashes = {} if known_hashes is None else known_hashes
    if id(module) not in known_hashes:
        kind = type(module)
        tensors = [*module._parameters.items(), *module._buffers.items()]
        children = module._modules.items()
        known_hashes[id(module)] = hash(
            (
                f"{kind.__module__}.{kind.__qualname__}",
                tuple((name, _shape(tensor)) for name, tensor in tensors),
                tuple((n, structure_hash(c, known_hashes)) for n, c in children if c is not None),
            )
        )
    return known_hashes[id(module)]


def _shape(tensor: Tensor | None) -> tuple[int, ...] | None:
    return None if tensor is None or is_lazy(tensor) else tuple(tensor.shape)


def names_by_structure(model: nn.Module) -> dict[int, list[str]]:
    """Return structure -> the names of the model's modules that have it."""
    known: dict[int, int] = {}
    names = defaultdict(list)
    for name, module in model.named_modules():
        names[structure_hash(module, known)].append(name)
    return names


def has_identifying_weights(module: nn.Module) -> bool:
    """Return whether a module has a parameter whose values identify it: not a gain or a bias."""
    return any(not is_lazy(p) and p.ndim > 1 for p in module.parameters())


def is_inside_module(name: str, module_name: str) -> bool:
    """Return whether a dotted name is that of a module or of a part of it."""
    return module_name in ("", name) or name.startswith(f"{module_name}.")


def are_modules_overlapping(name_a: str, name_b: str) -> bool:
    """Return whether two named modules are the same, or one is part of the other."""
    return is_inside_module(name_a, name_b) or is_inside_module(name_b, name_a)


def is_pruned(module: nn.Module) -> bool:
    """Return whether `torch.nn.utils.prune` computes a parameter of this very module."""
    hooks = module._forward_pre_hooks.values()
    return any(isinstance(hook, BasePruningMethod) for hook in hooks)
