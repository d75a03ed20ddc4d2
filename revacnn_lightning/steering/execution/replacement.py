"""Replaces the data of a tensor and keeps the object, so that whatever refers to it stays valid."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from revacnn_lightning.steering.execution.transaction import Transaction

__all__ = ["ChangeRecord", "gradient_of", "replace_data"]

# What reverting one change needs: removed entries, and numbers of optimizer state. Journals store
# it: the keys must stay as they are.
ChangeRecord = dict[str, Any]


def replace_data(tx: Transaction, tensor: Tensor, new: Tensor, grad: Tensor | None) -> None:
    """Give ``tensor`` the data of ``new`` and the gradient ``grad``, keeping the object.

    Autograd keeps a node per parameter that accumulates its gradient, with its size.
    DistributedDataParallel has hooks on them. A rollback keeps the nodes: a plan that was tried out
    changes nothing. Once the transaction has succeeded, the parameter gets a new one.
    """
    old, old_grad = tensor.detach(), gradient_of(tensor)

    def assign(value: Tensor, gradient: Tensor | None) -> None:
        with torch.no_grad():
            tensor.grad = None  # its shape may differ, which torch rejects
            tensor.data = value
            increment_version(tensor)
            tensor.grad = gradient

    tx.on_rollback(lambda: assign(old, old_grad), commit=lambda: _renew_node(tensor))
    assign(new, grad)


def _renew_node(tensor: Tensor) -> None:
    grad = gradient_of(tensor)
    with torch.no_grad():
        tensor.set_(tensor.detach())  # type: ignore[call-overload]
    if grad is not None:
        tensor.grad = grad


def gradient_of(tensor: Tensor) -> Tensor | None:
    """Return ``tensor.grad``; None for a computed tensor, such as a pruned weight: torch warns."""
    return tensor.grad if tensor.is_leaf or tensor.retains_grad else None
