"""The cost of each traced call in multiply-accumulates.

As usual, convolutions, linear layers and other matrix products are counted. Each call is recorded
with the channels of those of its dimensions that an edit may change, so its cost after an edit
follows from the plan (`planning/macs.py`) without running the edited network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from revacnn_lightning.steering.tracing.labels import labeled_dims
from revacnn_lightning.steering.tracing.records import OpCall, OpCost
from revacnn_lightning.steering.tracing.trace import Trace

__all__ = ["op_costs"]


def op_costs(trace: Trace, call: OpCall) -> Sequence[OpCost]:
    """Return the costs of the products of a call; none if the call is not counted."""
    if call.base in ("mkldnn_rnn_layer", "_cudnn_rnn"):
        return _recurrent(trace, call)
    count = _COUNTS.get(call.base)
    if count is None and call.base.startswith("_scaled_dot_product"):
        count = _attention
    return () if count is None else [count(trace, call)]


def _convolution(trace: Trace, call: OpCall) -> OpCost:
    """Every output pixel (input pixel, if transposed) costs the size of the weight."""
    x, weight, transposed = call.args[0], call.args[1], call.args[6]
    macs = weight.numel() * _places(x if transposed else call.out)
    factors = _factors(trace, (weight, 0), (weight, 1))
    return OpCost(trace.running_module_path(), macs, factors, _places(call.out))


def _deformable(trace: Trace, call: OpCall) -> OpCost:
    """Every output pixel costs the size of the weight, beside the interpolation of the input."""
    weight = call.args[1]
    factors = _factors(trace, (weight, 0), (weight, 1))
    places = _places(call.out)
    return OpCost(trace.running_module_path(), weight.numel() * places, factors, places)


def _places(activation: Tensor) -> int:
    """Return B · H · W of (B, C, H, W)."""
    return activation.shape[0] * math.prod(activation.shape[2:])


def _matrix_product(trace: Trace, call: OpCall) -> OpCost:
    """(…, N, K) x (…, K, M) costs N · K · M for each matrix."""
    first = 1 if call.base in ("addmm", "baddbmm") else 0  # their first argument is added
    x, weight = call.args[first : first + 2]
    inner = (weight, -2) if _channels_along(trace, weight, -2) is not None else (x, -1)
    factors = _factors(trace, (x, -2), inner, (weight, -1))
    places = x.numel() // max(1, x.shape[-1])
    return OpCost(trace.running_module_path(), x.numel() * weight.shape[-1], factors, places)


def _attention(trace: Trace, call: OpCall) -> OpCost:
    """softmax(q kᵀ) v of q (…, L, E), k (…, S, E), v (…, S, F); its channels are never edited."""
    q, k, v = call.args[:3]
    queries = math.prod(q.shape[:-1])
    macs = queries * k.shape[-2] * (q.shape[-1] + v.shape[-1])
    return OpCost(trace.running_module_path(), macs, ())


def _recurrent(trace: Trace, call: OpCall) -> list[OpCost]:
    """At each step of each sequence, each matrix of a recurrent layer is read once."""
    x, weights = call.args[0], call.args[1]
    listed = weights if isinstance(weights, (list, tuple)) else call.args[1:3]
    steps = x.numel() // x.shape[-1]
    return [
        OpCost(
            trace.running_module_path(),
            weight.numel() * steps,
            _factors(trace, (weight, 0), (weight, 1)),
            steps,
        )
        for weight in listed
        if weight.ndim == 2
    ]


_COUNTS: dict[str, Callable[[Trace, OpCall], OpCost]] = {
    **dict.fromkeys(("convolution", "_convolution", "convolution_overrideable"), _convolution),
    "deform_conv2d": _deformable,
    **dict.fromkeys(("mm", "addmm", "bmm", "baddbmm"), _matrix_product),
}


def _factors(trace: Trace, *dimensions: tuple[Tensor, int]) -> tuple[np.ndarray, ...]:
    found = (_channels_along(trace, tensor, dim) for tensor, dim in dimensions)
    return tuple(channels for channels in found if channels is not None)


def _channels_along(trace: Trace, tensor: Tensor, dim: int) -> np.ndarray | None:
    """Return the channels along one dimension; None if it has no label of its own.

    Unlike `Trace.channels_along`, this records nothing.
    """
    for label in trace.labels(tensor):
        if labeled_dims(label) == {dim % tensor.ndim}:
            return label.reshape(-1).numpy()
    return None
