"""Labels: which index of which tensor an activation's channel is.

Every index of every labelled dimension of every parameter and buffer is an *atom*, an integer. A
tensor's labels are a list of int64 *components*, each broadcastable to the tensor's shape: the
value at a position is the atom that this position belongs to. A component of a (B, C, H, W)
activation that says "channel c is filter c of conv1" has shape (1, C, 1, 1).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

Component = Tensor  # int64, broadcastable to the shape of the tensor it labels


def dims(component: Component) -> frozenset[int]:
    """The dimensions along which a component says anything: those of size > 1."""
    return frozenset([d for d, size in enumerate(component.shape) if size > 1])


def along(atoms: Tensor, ndim: int, dim: int) -> Component:
    """The component of an ``ndim``-dimensional tensor that has these 1-D atoms along ``dim``."""
    shape = [1] * ndim
    shape[dim] = -1
    return atoms.reshape(shape)


def compress(component: Component) -> Component:
    """The same component with every dimension along which it is constant reduced to size 1."""
    for d in range(component.ndim):
        if component.shape[d] > 1:
            first = component.narrow(d, 0, 1)
            if component.stride(d) == 0 or torch.equal(component, first.expand(component.shape)):
                component = first
    return component


def aligned(component: Component, ndim: int) -> Component:
    """The component with leading dimensions of size 1 added, as broadcasting would."""
    return component.reshape((1,) * (ndim - component.ndim) + tuple(component.shape))


def normalised(listed: object, ndim: int) -> list[int] | None:
    """Dimensions of an aten argument as non-negative ints: None or empty means all of them.

    Returns None for anything that is no list of dimensions.
    """
    if listed is None or (isinstance(listed, (list, tuple)) and not listed):
        return list(range(ndim))
    if isinstance(listed, int) and not isinstance(listed, bool):
        return [listed % ndim]
    if isinstance(listed, Iterable) and not isinstance(listed, (str, Tensor)):
        return [int(d) % ndim for d in listed]
    return None
