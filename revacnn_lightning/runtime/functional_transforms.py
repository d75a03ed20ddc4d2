"""Tensors inside the transforms of torch.func, such as vmap and grad."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["is_wrapped_by_transform", "without_transforms"]


def without_transforms(tensor: Tensor) -> Tensor:
    """Return the tensor of the step that a transform has wrapped; others are returned unchanged.

    Only its identity may be used: to compute with it inside of the transform is undefined.
    """
    return _unwrap(tensor)


def is_wrapped_by_transform(tensor: Tensor) -> bool:
    """Return whether a transform has wrapped the tensor, which is invalid after the transform."""
    return without_transforms(tensor) is not tensor


def _unwrap_privately(tensor: Tensor) -> Tensor:
    """Stand in for `torch.func.debug_unwrap`, which older releases of torch lack."""
    functorch: Any = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return tensor


_unwrap: Callable[[Tensor], Tensor] = getattr(torch.func, "debug_unwrap", _unwrap_privately)
