"""Tensors that are kept as they were in a call, though the model may overwrite their memory."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

__all__ = ["CopyOnWriteSnapshots", "TensorSnapshot", "have_same_layout"]


class TensorSnapshot:
    """The values that a tensor had in an earlier call, in its memory or in a copy."""

    def __init__(self, tensor: Tensor) -> None:
        self._set(tensor)

    def _set(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()  # keeps its memory when the tensor's data is replaced
        self.version = tensor._version
        self.address = tensor.untyped_storage().data_ptr()

    def copy(self) -> None:
        """Move the values to memory of their own."""
        self._set(self.tensor.clone())

    def equals(self, other: Tensor) -> bool:
        """Return whether a tensor has the same values; a zero equals one of the other sign."""
        if not have_same_layout(self.tensor, other):
            return False
        if self.tensor.data_ptr() == other.data_ptr():
            return other._version == self.version
        return torch.equal(self.tensor, other)


class CopyOnWriteSnapshots:
    """Snapshots of tensors, copied only before an operation writes to their memory."""

    def __init__(self) -> None:
        self._by_address: dict[int, list[TensorSnapshot]] = {}

    def keep(self, tensor: Tensor) -> TensorSnapshot:
        """Keep a tensor as it is now."""
        kept = TensorSnapshot(tensor)
        self._by_address.setdefault(kept.address, []).append(kept)
        return kept

    def release(self, kept: TensorSnapshot) -> None:
        """Keep a tensor no longer."""
        self._by_address[kept.address].remove(kept)

    def copy_before_write(self, tensor: Tensor) -> None:
        """Copy what is kept in the memory that an operation is about to write to."""
        try:
            address = tensor.untyped_storage().data_ptr()
        except (NotImplementedError, RuntimeError):  # a tensor without memory of its own
            return
        for kept in self._by_address.pop(address, ()) if address else ():
            kept.copy()
            self._by_address.setdefault(kept.address, []).append(kept)

    def is_all_of(self, tensor: Tensor) -> bool:
        """Return whether, beside what is kept, this tensor is the only one in its memory."""
        storage = tensor.untyped_storage()
        is_whole = storage.nbytes() == tensor.numel() * tensor.element_size()
        one = _references_of_one()
        if one is None or not is_whole or not _is_dense(tensor):
            return False
        if not storage.resizable():  # a NumPy array reads it, which does not count as a reference
            return False
        others = len(self._by_address.get(storage.data_ptr(), ()))
        return _references(storage) == one + others


def have_same_layout(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors have the same shape, type and strides."""
    return a.shape == b.shape and a.dtype == b.dtype and a.stride() == b.stride()


def _is_dense(tensor: Tensor) -> bool:
    """Return whether each place of a tensor's memory is one of its elements."""
    order = sorted(zip(tensor.stride(), tensor.shape, strict=True))
    expected = 1
    for stride, size in order:
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def _references(storage: torch.UntypedStorage) -> int:
    """Return how many tensors and storage objects refer to the memory of a storage."""
    return int(torch._C._storage_Use_Count(storage._cdata))


@functools.cache
def _references_of_one() -> int | None:
    """Return the references to the memory of a tensor that is the only one there.

    None if this release of torch does not count them as expected.
    """
    if not hasattr(torch._C, "_storage_Use_Count"):
        return None
    tensor = torch.empty(1)
    one = _references(tensor.untyped_storage())
    alias = tensor.detach()
    two = _references(tensor.untyped_storage())
    del alias
    is_counted = two == one + 1 and _references(tensor.untyped_storage()) == one
    return one if is_counted else None
