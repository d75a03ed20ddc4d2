"""Pooling and resizing of space, reductions, and what works along one dimension."""

from __future__ import annotations

from collections.abc import Sequence

from revacnn_lightning.steering.tracing.labels import Component, dims, normalised
from revacnn_lightning.steering.tracing.records import OpCall
from revacnn_lightning.steering.tracing.rules.operations import SPATIAL
from revacnn_lightning.steering.tracing.rules.table import rule, unknown
from revacnn_lightning.steering.tracing.trace import Trace

__all__ = ["reduce", "spatial"]


def spatial(trace: Trace, call: OpCall) -> None:
    x = call.args[0]
    space = set(range(x.ndim - SPATIAL[call.base], x.ndim))
    kept = []
    for component in trace.labels(x):
        if dims(component) & space:
            trace.pin(component, f"are pooled or resized as space in {trace.where()}")
        else:
            kept.append(component)
    for out in call.outs:
        trace.label(out, list(kept))


def reduce(trace: Trace, call: OpCall) -> None:
    x = call.args[0]
    at, name = (2, "dim") if call.base in ("linalg_vector_norm", "norm") else (1, "dim")
    listed = normalised(call.get(at, name), x.ndim)
    if listed is None:
        unknown(trace, call)
        return
    kept = []
    for labelled in trace.labels(x):
        component = _without_groups(trace, labelled, listed)
        if dims(component) & set(listed):
            trace.mix(component, f"aten.{call.base} in {trace.where()} reduces over them")
        elif call.outs[0].ndim == x.ndim:
            kept.append(component)
        else:
            kept.append(component.reshape([s for d, s in enumerate(component.shape)
                                           if d not in listed]))  # fmt: skip
    for out in call.outs:
        trace.label(out, list(kept))


def _without_groups(trace: Trace, component: Component, over: Sequence[int]) -> Component:
    """Of a component over (groups, channels per group), that of one group.

    What an operation over the groups makes of them belongs to all of them alike.
    """
    for dim in sorted(dims(component))[:-1]:
        if dim in over:
            first = component.narrow(dim, 0, 1)
            trace.union(first, component)
            component = first
    return component


@rule("_softmax", "_log_softmax", "softmax", "log_softmax", "cumsum", "cumprod", "sort", "topk")
def _over_one_dim(trace: Trace, call: OpCall) -> None:
    x = call.args[0]
    default = -1 if call.base in ("sort", "topk") else 0
    dim = call.get(2 if call.base == "topk" else 1, "dim", default) % x.ndim
    kept = []
    for labelled in trace.labels(x):
        component = _without_groups(trace, labelled, [dim])
        if dim in dims(component):
            trace.pin(component, f"pass aten.{call.base} in {trace.where()}")
        else:
            kept.append(component)
    for out in call.outs:
        trace.label(out, list(kept))
