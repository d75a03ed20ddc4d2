"""Outputs of the expensive operations that the forwards of one edit have in common.

An edit runs the model before the change, with the removed filters silenced, after the change, and
traced. Up to the edited layer all of these compute the same, and convolutions, matrix products and
max poolings take most of the time. `ReusedOutputs` computes each of them once.
"""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ReusedOutputs"]

# Operation -> the positions of its input and of its weight, None if it has none. Their results
# follow from their arguments alone.
_REUSED: dict[str, tuple[int, int | None]] = {
    "aten::convolution": (0, 1),
    "aten::addmm": (1, 2),
    "aten::mm": (0, 1),
    "aten::max_pool2d_with_indices": (0, None),
    "aten::max_pool3d_with_indices": (0, None),
}

# Smaller calls, and those that read each input a few times, such as depthwise convolutions, are
# computed faster than their arguments are compared. A max pooling takes six times as long.
_MIN_MACS = 1 << 18
_MIN_MACS_PER_INPUT = 32
_MIN_POOLED = 1 << 14

_Key = tuple[str, int, int, int]  # operation, address and offset of its weight, number of the call


class ReusedOutputs:
    """The outputs of calls of the forwards of one edit. Call `begin` before each forward.

    A call is one of the same operation with the same weight. Its output is reused

    - in an exact forward, and without a weight in any, if all its arguments are equal, bit by bit.
      So it is what the operation would have returned;
    - in a forward that is only traced if its arguments have the same shapes. What a trace needs
      are shapes, and values as the network has them. (A new weight is at another address. What a
      pooling returns shows whether a new filter is silent.)

    Between two forwards, the values of weights may only be changed by replacing their data, or by
    operations that count up their versions. Outputs on a GPU are not reused: comparing waits for
    it, and costs as much as computing them.
    """

    def __init__(self) -> None:
        self._calls: dict[_Key, _Call] = {}
        self._by_storage: dict[int, list[_Kept]] = {}
        self._counts: Counter[tuple[str, int, int]] = Counter()
        self._is_exact = True

    def begin(self, *, exact: bool) -> None:
        """Begin a forward, in which each output is returned at most once."""
        self._counts.clear()
        self._is_exact = exact

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the output of an operation, reused or computed.

        Pass what it writes to to `copy_before_write` first.
        """
        positions = _positions_of(func)
        if positions is None or torch.is_grad_enabled():
            return func(*args, **kwargs)
        x = args[positions[0]]
        weight = None if positions[1] is None else args[positions[1]]
        if not _is_expensive(x, weight) or not _are_plain(args, kwargs):
            return func(*args, **kwargs)
        place = (func._schema.name, *_address_of(weight))
        self._counts[place] += 1
        key = (*place, self._counts[place])
        known = self._calls.get(key)
        is_exact = self._is_exact or weight is None
        if known is not None and known.agrees(args, kwargs, is_exact):
            return known.returned()
        output = func(*args, **kwargs)
        self._keep(key, args, kwargs, output)
        return output

    def copy_before_write(self, tensor: Tensor) -> None:
        """Copy what is kept in the memory that an operation is about to write to."""
        try:
            found = self._by_storage.pop(tensor.untyped_storage().data_ptr(), ())
        except (NotImplementedError, RuntimeError):  # a tensor without memory of its own
            return
        for kept in found:
            kept.copy()
            self._by_storage.setdefault(kept.address, []).append(kept)

    def _keep(self, key: _Key, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        old = self._calls.get(key)
        for each in () if old is None else old.kept():
            self._by_storage[each.address].remove(each)
        arguments = [_Kept(each) if isinstance(each, Tensor) else each for each in args]
        outputs = [_Kept(each) for each in (output if isinstance(output, tuple) else (output,))]
        call = self._calls[key] = _Call(arguments, kwargs, outputs)
        for each in call.kept():
            self._by_storage.setdefault(each.address, []).append(each)


class _Kept:
    """A tensor as it was in a call."""

    def __init__(self, tensor: Tensor) -> None:
        self._set(tensor)

    def _set(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()  # keeps its memory when the tensor's data is replaced
        self.version = tensor._version
        self.address = tensor.untyped_storage().data_ptr()

    def copy(self) -> None:
        """Move the values to memory of their own."""
        self._set(self.tensor.clone())

    def has_shape_of(self, other: Tensor) -> bool:
        """Return whether a tensor has the same shape, type and strides."""
        mine = self.tensor
        return (
            mine.shape == other.shape
            and mine.dtype == other.dtype
            and mine.stride() == other.stride()
        )

    def equals(self, other: Tensor) -> bool:
        """Return whether a tensor is the same, bit by bit."""
        if not self.has_shape_of(other):
            return False
        if self.tensor.data_ptr() == other.data_ptr():
            return other._version == self.version
        return torch.equal(self.tensor, other)


@dataclass
class _Call:
    arguments: list[Any]  # tensors as `_Kept`
    named: dict[str, Any]
    outputs: list[_Kept]  # one, or those of a tuple

    def kept(self) -> list[_Kept]:
        """Return all tensors of the call."""
        return [each for each in (*self.arguments, *self.outputs) if isinstance(each, _Kept)]

    def returned(self) -> Any:
        """Return what the operation returned."""
        tensors = tuple(each.tensor.detach() for each in self.outputs)
        return tensors if len(tensors) > 1 else tensors[0]

    def agrees(self, args: tuple[Any, ...], kwargs: dict[str, Any], exact: bool) -> bool:
        """Return whether a call has these arguments; if not exact, tensors of these shapes."""
        if len(args) != len(self.arguments) or kwargs != self.named:
            return False
        for mine, other in zip(self.arguments, args, strict=True):
            if isinstance(mine, _Kept) != isinstance(other, Tensor):
                return False
            if not isinstance(mine, _Kept):
                if mine != other:
                    return False
            elif not (mine.equals(other) if exact else mine.has_shape_of(other)):
                return False
        return True


@functools.cache
def _positions_of(func: Any) -> tuple[int, int | None] | None:
    """Return the positions of input and weight of an operation whose outputs are reused."""
    return _REUSED.get(func._schema.name)


def _address_of(weight: Tensor | None) -> tuple[int, int]:
    if weight is None:
        return 0, 0
    return weight.untyped_storage().data_ptr(), int(weight.storage_offset())


def _is_expensive(x: Tensor, weight: Tensor | None) -> bool:
    """Return whether a call takes longer than comparing its arguments with those of another."""
    if weight is None:
        return x.numel() >= _MIN_POOLED
    macs = weight.numel() * x.numel() // max(x.shape[1], 1)  # with a stride of 1
    return macs >= max(_MIN_MACS, _MIN_MACS_PER_INPUT * x.numel())


def _are_plain(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether all tensors among the arguments can be kept and compared."""
    if any(isinstance(each, Tensor) for each in kwargs.values()):  # the output is given
        return False
    return all(
        type(each) in (Tensor, nn.Parameter)
        and each.device.type == "cpu"
        and each.layout == torch.strided
        and each.is_floating_point()
        and not each.is_inference()
        for each in args
        if isinstance(each, Tensor)
    )
