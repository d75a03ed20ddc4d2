"""Numbers the contents of memory, so that equal arguments are recognized without comparing them.

This is value numbering (Cocke 1970; Alpern, Wegman & Zadeck 1988) of the tensors of a few forwards.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["ContentNumbers", "can_be_numbered"]

_ATOMS = {str, torch.dtype, torch.device, torch.layout, torch.memory_format}
_COMPLEX = {torch.complex32, torch.complex64, torch.complex128}


class _Lasting(NamedTuple):
    """A tensor that existed before the forward that has read it, such as a parameter."""

    tensor: Tensor
    version: int
    alias: Tensor  # keeps the memory, also when the tensor's data is replaced
    number: int


class ContentNumbers:
    """Numbers the contents of storages: two with the same number contain the same bits.

    Call `begin` before each forward, `forget_number` before an operation writes to a storage, and
    `record_and_hold` afterwards. Every storage with a number must stay allocated until the end of
    the forward: another one at its address would have the same number.
    """

    def __init__(self) -> None:
        self._now: dict[int, int] = {}  # address -> number
        self._lasting: dict[int, _Lasting] = {}
        self._held: list[Tensor] = []
        self._unknown: set[int] = set()  # addresses
        self._count = 0

    def begin(self) -> None:
        """Begin a forward."""
        self._now.clear()
        self._held.clear()
        self._unknown.clear()

    def new_number(self) -> int:
        """Return a number for contents that are not known to equal any others."""
        self._count += 1
        return self._count

    def has_number(self, tensor: Tensor) -> bool:
        """Return whether the storage of a tensor has a number in this forward."""
        return tensor.untyped_storage().data_ptr() in self._now

    def record_number(self, address: int, number: int) -> None:
        """Record the number of a new storage, which something else keeps allocated."""
        if address:  # without elements, all have the same
            self._now[address] = number

    def record_and_hold(self, tensor: Tensor, number: int = 0) -> None:
        """Record the number of a storage, and keep it allocated until the end of the forward.

        Args:
            number: 0: what it contains is not known to equal anything else.
        """
        self._held.append(tensor.detach())
        self.record_number(tensor.untyped_storage().data_ptr(), number or self.new_number())

    def mark_unnumbered(self, tensor: Tensor) -> None:
        """Give a storage of this forward no number. It need not stay allocated."""
        address = tensor.untyped_storage().data_ptr()
        if address not in self._now:
            self._unknown.add(address)

    def forget_number(self, tensor: Tensor) -> None:
        """Forget the number of a storage that an operation is about to write to, or to resize.

        After this forward, the model is restored: then the number is unknown, too.
        """
        address = tensor.untyped_storage().data_ptr()
        self._now.pop(address, None)
        lasting = self._lasting.pop(address, None)
        if lasting is not None:
            self._held.append(lasting.alias)

    def call_key(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        """Return what identifies the result of a call; None if something else may determine it."""
        try:
            named = tuple((name, self._part(kwargs[name])) for name in sorted(kwargs))
            return (func, tuple([self._part(each) for each in args]), named)
        except TypeError:
            return None

    def _part(self, value: Any) -> Hashable:
        """Return what identifies an argument.

        Raises:
            TypeError: it is of an unknown type.
        """
        kind = type(value)
        if kind is Tensor or kind is nn.Parameter:
            return self._part_of_tensor(value)
        if kind is int or value is None:
            return value
        if kind is bool or kind in _ATOMS:  # True equals 1, which is another argument
            return kind, value
        if kind is float:
            return kind, value.hex()  # 0.0 equals -0.0
        if kind is list or kind is tuple:
            return tuple([self._part(each) for each in value])
        raise TypeError(kind)

    def _part_of_tensor(self, tensor: Tensor) -> Hashable:
        """Return what identifies the contents of a tensor.

        Raises:
            TypeError: its memory does not determine them, is not observed, or has no number.
        """
        if not can_be_numbered(tensor):
            raise TypeError(tensor.dtype)
        address = tensor.untyped_storage().data_ptr()
        number = self._now.get(address)
        if number is None:
            if address in self._unknown:
                raise TypeError("of this forward, without a number")
            number = self._now[address] = self._number_of_lasting(tensor, address)
        return number, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype

    def _number_of_lasting(self, tensor: Tensor, address: int) -> int:
        """Return the number of a storage that no operation of this forward has produced."""
        if not address:  # without elements
            return 0
        known = self._lasting.get(address)
        # Another view of this memory may count its versions on its own.
        if known is not None and known.tensor is tensor and known.version == tensor._version:
            return known.number
        number = self.new_number()
        self._lasting[address] = _Lasting(tensor, tensor._version, tensor.detach(), number)
        return number


def can_be_numbered(tensor: Tensor) -> bool:
    """Return whether the memory of a tensor determines its values and is observed."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and tensor.dtype not in _COMPLEX
        and not tensor.is_neg()
        and not tensor.is_inference()
    )
