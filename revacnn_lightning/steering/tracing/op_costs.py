"""The multiplications of a traced forward: what each call costs, and in proportion to what.

Counted are convolutions, linear layers and other matrix products, as everybody does. Each call is
kept with the labels of those of its dimensions that an edit may change, so that what it will cost
follows from a plan alone (`macs.py`), without running the edited network.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor

from revacnn_lightning.steering.tracing.labels import dims
from revacnn_lightning.steering.tracing.records import OpCall, OpCost
from revacnn_lightning.steering.tracing.trace import Trace

__all__ = ["op_cost"]


def op_cost(trace: Trace, call: OpCall) -> OpCost | None:
    """What a call multiplies; None if it multiplies nothing that is counted."""
    count = _COUNTS.get(call.base)
    if count is None and call.base.startswith("_scaled_dot_product"):
        count = _attention
    return None if count is None else count(trace, call)


def _convolution(trace: Trace, call: OpCall) -> OpCost:
    """The whole weight at every pixel of the output; transposed, at every pixel of the input."""
    x, weight, transposed = call.args[0], call.args[1], call.args[6]
    macs = weight.numel() * _places(x if transposed else call.out)
    return OpCost(trace.path(), macs, _sides(trace, (weight, 0), (weight, 1)), _places(call.out))


def _places(activation: Tensor) -> int:
    """B · H · W of (B, C, H, W)."""
    return activation.shape[0] * math.prod(activation.shape[2:])


def _matrix_product(trace: Trace, call: OpCall) -> OpCost:
    """(…, N, K) x (…, K, M)."""
    first = 1 if call.base in ("addmm", "baddbmm") else 0  # behind what is added
    x, weight = call.args[first : first + 2]
    inner = (weight, -2) if _atoms_along(trace, weight, -2) is not None else (x, -1)
    sides = _sides(trace, (x, -2), inner, (weight, -1))
    return OpCost(trace.path(), x.numel() * weight.shape[-1], sides)


def _attention(trace: Trace, call: OpCall) -> OpCost:
    """softmax(q kᵀ) v of q (…, L, E), k (…, S, E), v (…, S, F), whose channels are never edited."""
    q, k, v = call.args[:3]
    queries = math.prod(q.shape[:-1])
    return OpCost(trace.path(), queries * k.shape[-2] * (q.shape[-1] + v.shape[-1]), ())


_COUNTS: dict[str, Callable[[Trace, OpCall], OpCost]] = {
    **dict.fromkeys(("convolution", "_convolution", "convolution_overrideable"), _convolution),
    **dict.fromkeys(("mm", "addmm", "bmm", "baddbmm"), _matrix_product),
}


def _sides(trace: Trace, *dimensions: tuple[Tensor, int]) -> tuple[np.ndarray, ...]:
    found = (_atoms_along(trace, tensor, dim) for tensor, dim in dimensions)
    return tuple(atoms for atoms in found if atoms is not None)


def _atoms_along(trace: Trace, tensor: Tensor, dim: int) -> np.ndarray | None:
    """The atom of each index of one dimension; None where it has no labels of its own."""
    for component in trace.labels(tensor):
        if dims(component) == {dim % tensor.ndim}:
            return component.reshape(-1).numpy()
    return None
