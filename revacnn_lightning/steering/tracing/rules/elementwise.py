"""Operations that act on each element by itself, broadcasting their operands."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from revacnn_lightning.steering.tracing.labels import Component, aligned, dims
from revacnn_lightning.steering.tracing.records import OpCall
from revacnn_lightning.steering.tracing.trace import Trace

__all__ = ["join", "pointwise"]


def pointwise(trace: Trace, call: OpCall) -> None:
    """Broadcast operands: what meets at one place belongs together."""
    if not call.outs:
        return
    out = call.outs[0]
    if call.inplace and call.tensors and not trace.labels(call.args[0]):
        for tensor in call.tensors[1:]:
            for component in trace.labels(tensor):
                trace.pin(component, f"are written into a tensor of fixed size in "
                                      f"{trace.where()}")  # fmt: skip
        return
    if len(call.tensors) == 1:  # relu and the like: nothing meets
        joined = trace.labels(call.tensors[0])
        for each in call.outs:
            if each.shape == out.shape:
                trace.label(each, list(joined))
        return
    joined = join(trace, call.tensors, out.ndim)
    _pin_constants(trace, call.tensors, joined, out.ndim)
    for each in call.outs:
        if each.shape == out.shape:
            trace.label(each, list(joined))


def join(trace: Trace, tensors: Sequence[Tensor], ndim: int) -> list[Component]:
    """The components of a broadcast result; the operands' are united where they overlap.

    A component that conv filters emitted stands for the result before one of a parameter: what
    arrives further on is the filter.
    """
    joined: list[Component] = []
    for tensor in tensors:
        for raw in trace.labels(tensor):
            component = aligned(raw, ndim)
            said = dims(component)
            for i, other in enumerate(joined):
                theirs = dims(other)
                if said & theirs:
                    trace.union(component, other)
                    joined[i] = _stands_for_both(trace, component, other)
                    break
            else:
                joined.append(component)
    return joined


def _stands_for_both(trace: Trace, new: Component, old: Component) -> Component:
    said, theirs = dims(new), dims(old)
    if said == theirs:
        new_emitted, old_emitted = trace.is_emitted(new), trace.is_emitted(old)
        if new_emitted and not old_emitted:
            trace.arrive(old, new)
            return new
        if old_emitted and not new_emitted:
            trace.arrive(new, old)
        return old
    if said < theirs:
        return old
    if theirs < said:
        return new
    return old.expand(torch.broadcast_shapes(old.shape, new.shape))


def _pin_constants(
    trace: Trace, tensors: Sequence[Tensor], joined: list[Component], ndim: int
) -> None:
    """An operand without labels along a labelled dimension has a size nobody can edit."""
    for tensor in tensors:
        if trace.is_uniform(tensor) or tensor.numel() == 1:
            continue
        lead = ndim - tensor.ndim
        wide = {d + lead for d, size in enumerate(tensor.shape) if size > 1}
        known = [dims(aligned(c, ndim)) for c in trace.labels(tensor)]
        for component in joined:
            said = dims(component)
            if said & wide and not any(said & k for k in known):
                trace.pin(component, f"meet a tensor of fixed size in {trace.where()} "
                                      f"(aten operation of {ndim} dimensions)")  # fmt: skip
