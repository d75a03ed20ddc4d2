"""Replaces the data of a tensor and keeps the object, so that whatever refers to it stays valid."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from revacnn_lightning.steering.execution.transaction import Transaction

__all__ = ["ChangeRecord", "gradient_of", "replace_data"]

# What reverting one change needs: removed entries, and numbers of optimizer state. Journals store
# it: the keys must stay as they are.
ChangeRecord = dict[str, Any]


def replace_data(tx: Transaction, tensor: Tensor, new: Tensor, grad: Tensor | None) -> None:
    """Give ``tensor`` the data of ``new`` and the gradient ``grad``, keeping the object."""
    old, old_grad = tensor.detach(), gradient_of(tensor)

    def assign(value: Tensor, gradient: Tensor | None) -> None:
        with torch.no_grad():
            tensor.grad = None  # its shape may differ, which torch rejects
            tensor.set_(value)  # type: ignore[call-overload]
            tensor.grad = gradient

    tx.on_rollback(lambda: assign(old, old_grad))
    assign(new, grad)


def gradient_of(tensor: Tensor) -> Tensor | None:
    """Return ``tensor.grad``; None for a computed tensor, such as a pruned weight: torch warns."""
    return tensor.grad if tensor.is_leaf or tensor.retains_grad else None
