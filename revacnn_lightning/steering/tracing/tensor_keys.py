"""Recognizes the tensors of a traced forward when an operation reads them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["TensorKeys"]


class TensorKeys:
    """Keys of tensors. A tensor that is recorded has the same key when an operation reads it.

    Usually the object is the same. A tensor subclass wraps every result in a new object, and
    ``x.data`` is a new object, too; these are recognized by their memory.
    """

    def __init__(self) -> None:
        self._permanent: set[int] = set()
        self._tensors: dict[int, Tensor] = {}  # keeps their ids and their memory unique
        self._by_memory: dict[tuple[Any, ...], int] = {}
        self._not_in_memory: list[Tensor] = []  # recorded, but not in `_by_memory` yet

    def record_permanent(self, tensor: Tensor) -> int:
        """Record a tensor that outlives the forward, and return its key."""
        self._permanent.add(id(tensor))
        return id(tensor)

    def record(self, tensor: Tensor) -> int:
        """Record a tensor of this forward, and return its key."""
        key = id(tensor)
        self._tensors[key] = tensor
        self._not_in_memory.append(tensor)
        return key

    def find(self, value: Any) -> int:
        """Return the key of a value; that of no recorded tensor if it is none."""
        key = id(value)
        if key in self._tensors or key in self._permanent or not isinstance(value, Tensor):
            return key
        for tensor in self._not_in_memory:  # only now: most networks never look for another object
            memory = _memory_of(tensor)
            if memory is not None:
                self._by_memory[memory] = id(tensor)
        self._not_in_memory.clear()
        return self._by_memory.get(_memory_of(value) or (), key)

    def clear(self) -> None:
        """Release the tensors of a finished forward."""
        self._tensors.clear()
        self._by_memory.clear()
        self._not_in_memory.clear()


def _memory_of(tensor: Tensor) -> tuple[Any, ...] | None:
    """Return where the elements of a tensor are; None if it has none, or no memory of its own."""
    if tensor.layout != torch.strided or tensor.is_nested or not tensor.numel():
        return None
    try:
        address = tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # it wraps other tensors
        return None
    if not address:
        return None
    return address, tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype
