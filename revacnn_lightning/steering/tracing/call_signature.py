"""Compares the code of two forwards: one in training mode and one in evaluation mode."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from revacnn_lightning.steering.tracing.op_effects import UNDETERMINED

__all__ = ["DRAW_MASK", "CallSignature", "tensor_positions"]

# What these return has no values yet, or those of the argument.
_NOT_COMPARED = UNDETERMINED | {"detach", "alias"}
DRAW_MASK = torch.ops.aten.bernoulli_.float  # of dropout


class CallSignature:
    """A hash of the operations that a forward calls, and of the model's tensors that each reads.

    It does not depend on sizes, so it is the same before and after an edit that resizes layers. It
    leaves out what every training forward does besides: dropout and the counters of batch norms.

    Args:
        positions: see `tensor_positions`.
    """

    def __init__(self, positions: Mapping[int, int]) -> None:
        self._positions = positions
        self._masks: dict[int, Tensor] = {}  # drawn and not applied yet; kept, so ids are unique
        self.value = 0
        self._is_finished = False

    def finish(self) -> None:
        """Ignore later calls: the forward has returned."""
        self._is_finished = True

    def record(self, func: Any, args: tuple[Any, ...]) -> None:
        """Add a call of a forward. Call this before the operation runs."""
        if self._is_finished:
            return
        if func is DRAW_MASK:
            self._masks[id(args[0])] = args[0]
        elif self._masks and any(id(arg) in self._masks for arg in args):
            if id(args[0]) not in self._masks:  # applied, not scaled
                self._masks = {}
        elif _is_compared(func) and not self._is_counted(args):
            positions = self._positions
            read = [positions[id(arg)] for arg in args if id(arg) in positions]
            self.value = hash((self.value, func, *read))

    def _is_counted(self, args: tuple[Any, ...]) -> bool:
        """Return whether the first argument is a counter in the model, such as of its batches."""
        first = args[0] if args else None
        return (
            isinstance(first, Tensor)
            and not first.ndim
            and not first.is_floating_point()
            and id(first) in self._positions
        )


def tensor_positions(tensors: Iterable[tuple[str, Tensor]]) -> dict[int, int]:
    """Return the positions of the parameters and buffers of a model by their ``id``.

    Args:
        tensors: what `list_named_tensors` returns.
    """
    return {id(tensor): at for at, (_, tensor) in enumerate(tensors)}


@functools.cache
def _is_compared(func: Any) -> bool:
    """Return whether the values of a forward may depend on this operation."""
    return func._schema.name.partition("::")[2] not in _NOT_COMPARED
