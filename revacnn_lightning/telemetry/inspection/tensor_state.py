"""Restores tensors that a forward overwrites. A tensor is copied only when it is about to change.

A forward may overwrite any tensor of its model: batch norms update their running statistics, and a
momentum encoder or a memory queue is updated by the ``forward`` of its model. Copying all tensors
of a large model before each forward is expensive, and nearly none of them change. Therefore
`TensorState` observes every operation of the forward, and copies the storage of a tensor of the
model the first time that an operation writes to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from revacnn_lightning.telemetry.inspection.dispatch_mode import LightDispatchMode
from revacnn_lightning.telemetry.inspection.written_tensors import written_tensors

__all__ = ["TensorState"]

COPIED_FIRST = 1 << 14  # elements; smaller buffers are copied before the forward


class TensorState(LightDispatchMode):
    """The tensors of a model, restored by `restore`. Enter it as a context during the forward.

    The version counters of the tensors are not restored: an operation in place inside increases
    them, and a backward pass through a graph that was built before then refuses to run.

    Args:
        tensors: those to restore: their values, ``requires_grad``, and ``.grad``, which is None
            inside, so that a backward pass inside does not add to it.
        at_once: copy all tensors before the forward, for code whose operations are not observed.

    Attributes:
        are_all_copied: whether all tensors were copied before the forward.
    """

    def __init__(self, tensors: Iterable[Tensor], *, at_once: bool = False) -> None:
        super().__init__()
        self.are_all_copied = at_once
        self._aliases = [(tensor, tensor.data) for tensor in tensors if _is_restorable(tensor)]
        self._flags = [(tensor, tensor.requires_grad) for tensor, _ in self._aliases]
        self._gradients: list[tuple[Tensor, Tensor]] = []
        self._by_storage: dict[int, torch.UntypedStorage] | None = None
        self._copies: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        for tensor, alias in self._aliases:
            if at_once or (alias.numel() <= COPIED_FIRST and not tensor.requires_grad):
                self._copy(alias.untyped_storage())
            if tensor.is_leaf and tensor.grad is not None:
                self._gradients.append((tensor, tensor.grad))
                tensor.grad = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        self.copy_before(func, args, kwargs)
        return func(*args, **kwargs)

    def copy_before(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Copy the tensors of the model that an operation is about to write to."""
        for tensor in written_tensors(func, args, kwargs):
            self._copy_before_write(tensor)

    def restore(self) -> None:
        """Give all tensors the storage, the values and the gradients they had."""
        for tensor, alias in self._aliases:
            if tensor.data_ptr() != alias.data_ptr() or tensor.shape != alias.shape:
                tensor.data = alias
        for storage, copy in self._copies.values():
            storage.copy_(copy, non_blocking=False)
        for tensor, requires_grad in self._flags:
            if tensor.requires_grad != requires_grad:
                tensor.requires_grad_(requires_grad)
        kept = {id(tensor) for tensor, _ in self._gradients}
        for tensor, _ in self._aliases:
            if tensor.is_leaf and id(tensor) not in kept and tensor.grad is not None:
                tensor.grad = None
        for tensor, gradient in self._gradients:
            tensor.grad = gradient

    def _copy_before_write(self, tensor: Tensor) -> None:
        if self._by_storage is None:
            storages = [alias.untyped_storage() for _, alias in self._aliases]
            self._by_storage = {storage.data_ptr(): storage for storage in storages}
        try:
            storage = self._by_storage.get(tensor.untyped_storage().data_ptr())
        except (NotImplementedError, RuntimeError):  # a sparse or a fake tensor: none of the model
            return
        if storage is not None:
            self._copy(storage)

    def _copy(self, storage: torch.UntypedStorage) -> None:
        if storage.data_ptr() not in self._copies and storage.nbytes():
            self._copies[storage.data_ptr()] = (storage, storage.clone())


def _is_restorable(tensor: Tensor) -> bool:
    """Return whether the tensor has a storage of its own: sparse, lazy and meta tensors do not."""
    if is_lazy(tensor) or tensor.layout != torch.strided or tensor.is_meta:
        return False
    with suppress(NotImplementedError, RuntimeError):
        return tensor.untyped_storage().data_ptr() != 0 or tensor.numel() == 0
    return False
