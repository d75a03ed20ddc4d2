"""Restores tensors that a forward overwrites. A tensor is copied only when it is about to change.

A forward may overwrite any tensor of its model: batch norms update their running statistics, and a
momentum encoder or a memory queue is updated by the ``forward`` of its model. Copying all tensors
of a large model before each forward is expensive, and nearly none of them change. Therefore
`TensorState` observes every operation of the forward, and copies the storage of a tensor of the
model the first time that an operation writes to it. In a small model it is the reverse: one copy of
everything takes less time than observing every operation.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from revacnn_lightning.telemetry.inspection.dispatch_mode import NoCompileDispatchMode
from revacnn_lightning.telemetry.inspection.small_tensors import SmallTensorBackup, can_be_packed
from revacnn_lightning.telemetry.inspection.written_tensors import written_tensors

__all__ = ["TensorState", "are_cheap_to_copy"]

COPIED_FIRST = 1 << 14  # elements; smaller buffers are copied before the forward
# Bytes of a model that is copied whole. Copying and comparing so many takes about 0.1 ms, and
# observing a forward of 20 operations 0.35 ms.
COPIED_WHOLE = 1 << 19

_PLAIN = (Tensor, nn.Parameter)
_shapes = attrgetter("shape")
_requires_grad = attrgetter("requires_grad")


class TensorState(NoCompileDispatchMode):
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
        # Whole lists are read and compared: a loop over thousands of tensors takes milliseconds.
        self._tensors = [tensor for tensor in tensors if _is_restorable(tensor)]
        self._aliases = [tensor.data for tensor in self._tensors]
        self._addresses = list(map(Tensor.data_ptr, self._tensors))
        self._shapes = list(map(_shapes, self._tensors))
        self._flags = list(map(_requires_grad, self._tensors))
        self._gradients: list[tuple[Tensor, Tensor]] = []
        self._by_storage: dict[int, torch.UntypedStorage] | None = None
        self._copies: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        small = []
        for alias, requires_grad in zip(self._aliases, self._flags, strict=True):
            if at_once and not _is_all_of_small(alias):
                self._copy(alias.untyped_storage())
            elif at_once:
                small.append(alias)
            elif not requires_grad and alias.numel() <= COPIED_FIRST:
                if can_be_packed(alias):
                    small.append(alias)
                else:
                    self._copy(alias.untyped_storage())
        self._small = SmallTensorBackup(small)
        for tensor in self._tensors:
            if tensor.is_leaf and tensor.grad is not None:
                self._gradients.append((tensor, tensor.grad))
                tensor.grad = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        for tensor in written_tensors(func, args, kwargs):
            self.copy_before_write(tensor)
        return func(*args, **kwargs)

    def copy_before_write(self, tensor: Tensor) -> None:
        """Copy a tensor that an operation is about to write to, if it is one of the model."""
        if self._by_storage is None:
            storages = list(map(Tensor.untyped_storage, self._aliases))
            self._by_storage = {storage.data_ptr(): storage for storage in storages}
        try:
            storage = self._by_storage.get(tensor.untyped_storage().data_ptr())
        except (NotImplementedError, RuntimeError):  # a sparse or a fake tensor: none of the model
            return
        if storage is not None and not self._small.contains(storage):
            self._copy(storage)

    def restore(self) -> None:
        """Give all tensors the storage, the values and the gradients they had."""
        self._restore_storages()
        self._small.restore()
        for storage, copy in self._copies.values():
            storage.copy_(copy, non_blocking=False)
        if list(map(_requires_grad, self._tensors)) != self._flags:
            for tensor, requires_grad in zip(self._tensors, self._flags, strict=True):
                if tensor.requires_grad != requires_grad:
                    tensor.requires_grad_(requires_grad)
        kept = {id(tensor) for tensor, _ in self._gradients}
        for tensor in self._tensors:
            if tensor.is_leaf and tensor.grad is not None and id(tensor) not in kept:
                tensor.grad = None
        for tensor, gradient in self._gradients:
            tensor.grad = gradient

    def _restore_storages(self) -> None:
        """Give all tensors the memory they had."""
        addresses, shapes = map(Tensor.data_ptr, self._tensors), map(_shapes, self._tensors)
        if list(addresses) == self._addresses and list(shapes) == self._shapes:
            return
        for tensor, alias in zip(self._tensors, self._aliases, strict=True):
            if tensor.data_ptr() != alias.data_ptr() or tensor.shape != alias.shape:
                tensor.data = alias

    def _copy(self, storage: torch.UntypedStorage) -> None:
        if storage.data_ptr() not in self._copies and storage.nbytes():
            self._copies[storage.data_ptr()] = (storage, storage.clone())


def are_cheap_to_copy(tensors: Iterable[Tensor]) -> bool:
    """Return whether copying all of these tensors takes less time than observing a forward."""
    return sum(each.numel() * each.element_size() for each in tensors) <= COPIED_WHOLE


def _is_all_of_small(alias: Tensor) -> bool:
    """Return whether copying a tensor as one of many copies all of its memory."""
    if not can_be_packed(alias) or alias.numel() > COPIED_FIRST:
        return False
    return alias.numel() * alias.element_size() == alias.untyped_storage().nbytes()


def _is_restorable(tensor: Tensor) -> bool:
    """Return whether the tensor has a storage of its own: sparse, lazy and meta tensors do not."""
    if tensor.layout != torch.strided or tensor.is_meta:
        return False
    try:
        if type(tensor) in _PLAIN:
            return tensor.data_ptr() != 0 or tensor.numel() == 0
        if is_lazy(tensor):
            return False
        return tensor.untyped_storage().data_ptr() != 0 or tensor.numel() == 0
    except (NotImplementedError, RuntimeError):
        return False
