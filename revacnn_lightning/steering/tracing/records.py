"""The records of a traced forward: plain data for rules and planners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from revacnn_lightning.steering.tracing.traced_int import LinearExpression

__all__ = ["AttributesEqualToChannelCount", "EqualParts", "OpCall", "OpCost", "ParameterDimension"]


class ParameterDimension(NamedTuple):
    """One dimension of one parameter or buffer, with the channels ``start <= c < stop``."""

    tensor: str
    dim: int
    start: int
    stop: int

    @property
    def size(self) -> int:
        """The length of the dimension."""
        return self.stop - self.start


@dataclass
class OpCall:
    """One aten call. ``base`` is its name without overload and trailing ``_``."""

    func: Any
    name: str
    base: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    tensors: list[Tensor]
    outs: list[Tensor]

    @property
    def is_inplace(self) -> bool:
        """Whether the call changes its first argument."""
        return self.name != self.base

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument that may be given by position or by name."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)


class AttributesEqualToChannelCount(NamedTuple):
    """An expression of module attributes that equals the number of ``channels``.

    ``where`` is the module in whose forward it is used.
    """

    expression: LinearExpression
    channels: Tensor  # int64, 1-D
    where: str


class EqualParts(NamedTuple):
    """Channels that a view or a split in module ``where`` divides into parts of equal size.

    Attributes:
        parts: the channels of each part, in order.
        is_split: they are separate tensors, and the last may be smaller, as ``chunk`` returns them.
    """

    parts: tuple[np.ndarray, ...]
    is_split: bool
    where: str


class OpCost(NamedTuple):
    """The cost of one call that multiplies, on all samples of the traced batch.

    Attributes:
        modules: the modules whose forwards contain the call, outermost first.
        macs: multiply-accumulates.
        factors: the channels along each dimension that ``macs`` is proportional to.
        places: the number of (sample, position) pairs of the output; 0 for attention.
    """

    modules: tuple[str, ...]
    macs: int
    factors: tuple[np.ndarray, ...]
    places: int = 0
