"""Expensive calls, whose arguments are compared with those of the same call in another forward."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from revacnn_lightning.steering.tracing.tensor_snapshots import (
    CopyOnWriteSnapshots,
    TensorSnapshot,
    have_same_layout,
)

__all__ = ["CachedCallResult", "ExpensiveCallCache", "Place"]

# Operation -> the positions of its input and of its weight, None if it has none.
_COMPARED: dict[str, tuple[int, int | None]] = {
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

_NO_WEIGHT = (0, 0)

Place = tuple[str, int, int, int]  # operation, address and offset of its weight, number of the call


@dataclass(eq=False)
class CachedCallResult:
    """What a call returned: one tensor, or a tuple.

    Attributes:
        numbers: the numbers of the contents of the outputs.
        forward: the last forward that it was returned in.
    """

    outputs: list[TensorSnapshot]
    numbers: list[int]
    is_tuple: bool
    forward: int

    def tensor_or_tuple(self) -> Any:
        """Return what the call returned: one tensor, or a tuple of tensors."""
        found = tuple(each.tensor.detach() for each in self.outputs)
        return found if self.is_tuple else found[0]


@dataclass(eq=False)
class _Call:
    arguments: list[Any]  # tensors as `TensorSnapshot`
    named: dict[str, Any]
    result: CachedCallResult

    def agrees(self, args: tuple[Any, ...], kwargs: dict[str, Any], exact: bool) -> bool:
        """Return whether a call has these arguments; if not exact, tensors of these shapes."""
        if len(args) != len(self.arguments) or kwargs != self.named:
            return False
        for mine, other in zip(self.arguments, args, strict=True):
            if isinstance(mine, TensorSnapshot) != isinstance(other, Tensor):
                return False
            if not isinstance(mine, TensorSnapshot):
                if mine != other:
                    return False
            elif not (mine.equals(other) if exact else have_same_layout(mine.tensor, other)):
                return False
        return True


class ExpensiveCallCache:
    """Caches the newest results of expensive calls by operation, weight and number."""

    def __init__(self, kept: CopyOnWriteSnapshots) -> None:
        self._kept = kept
        self._calls: dict[Place, _Call] = {}
        self._counts: Counter[tuple[str, int, int]] = Counter()

    def begin(self) -> None:
        """Begin a forward."""
        self._counts.clear()

    def restarted(self, kept: CopyOnWriteSnapshots) -> ExpensiveCallCache:
        """Return the same without any call, in the middle of a forward."""
        restarted = ExpensiveCallCache(kept)
        restarted._counts = self._counts
        return restarted

    def next_place(self, func: Any, args: tuple[Any, ...]) -> Place | None:
        """Count a call and return its place; None if its arguments are not compared."""
        positions = _positions_of(func)
        if positions is None:
            return None
        x = args[positions[0]]
        weight = None if positions[1] is None else args[positions[1]]
        if not x.is_floating_point() or not _is_expensive(x, weight):
            return None
        address = _NO_WEIGHT
        if weight is not None:
            address = weight.untyped_storage().data_ptr(), int(weight.storage_offset())
        counted = (func._schema.name, *address)
        self._counts[counted] += 1
        return (*counted, self._counts[counted])

    def find(
        self, place: Place, args: tuple[Any, ...], kwargs: dict[str, Any], *, exact: bool
    ) -> CachedCallResult | None:
        """Return the result of the call at this place in an earlier forward, if it will do.

        Args:
            exact: all arguments are compared bit by bit, else only their shapes if the call has a
                weight.
        """
        call = self._calls.get(place)
        is_exact = exact or place[1:3] == _NO_WEIGHT
        return call.result if call is not None and call.agrees(args, kwargs, is_exact) else None

    def keep(
        self, place: Place, args: tuple[Any, ...], kwargs: dict[str, Any], result: CachedCallResult
    ) -> CachedCallResult | None:
        """Keep the arguments of a call; return the result of the one that it replaces."""
        old = self._calls.get(place)
        for each in () if old is None else old.arguments:
            if isinstance(each, TensorSnapshot):
                self._kept.release(each)
        arguments = [self._kept.keep(each) if isinstance(each, Tensor) else each for each in args]
        self._calls[place] = _Call(arguments, kwargs, result)
        return None if old is None else old.result


@functools.cache
def _positions_of(func: Any) -> tuple[int, int | None] | None:
    """Return the positions of input and weight of an operation whose arguments are compared."""
    return _COMPARED.get(func._schema.name)


def _is_expensive(x: Tensor, weight: Tensor | None) -> bool:
    """Return whether a call takes longer than comparing its arguments with those of another."""
    if weight is None:
        return x.numel() >= _MIN_POOLED
    macs = weight.numel() * x.numel() // max(x.shape[1], 1)  # with a stride of 1
    return macs >= max(_MIN_MACS, _MIN_MACS_PER_INPUT * x.numel())
