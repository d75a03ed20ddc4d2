"""What a traced forward leaves behind: plain data, as rules and planners read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from revacnn_lightning.steering.tracing.traced_int import LinearExpression

__all__ = ["OpCall", "OpCost", "SizeUse", "TensorDimension"]


class TensorDimension(NamedTuple):
    """One dimension of one parameter or buffer, and the atoms ``start <= a < stop`` it owns."""

    name: str
    dim: int
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


@dataclass
class OpCall:
    """One aten call, as a rule sees it. ``base`` is the name without overload or trailing ``_``."""

    func: Any
    name: str
    base: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    tensors: list[Tensor]
    outs: list[Tensor]

    @property
    def inplace(self) -> bool:
        return self.name != self.base

    def get(self, position: int, name: str, default: Any = None) -> Any:
        """An argument given by position or by name."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)


class SizeUse(NamedTuple):
    """``expression`` is how many of ``atoms`` there are."""

    expression: LinearExpression
    atoms: Tensor  # int64, 1-D
    where: str


class OpCost(NamedTuple):
    """One call that multiplies, on all samples of the traced batch.

    Attributes:
        modules: whose forwards it is part of, outermost first.
        macs: multiply-accumulates.
        sides: the atoms along each dimension that ``macs`` is proportional to.
        places: (sample, pixel) pairs of a conv's output; 0 if it is no conv.
    """

    modules: tuple[str, ...]
    macs: int
    sides: tuple[np.ndarray, ...]
    places: int = 0
