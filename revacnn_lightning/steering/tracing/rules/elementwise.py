"""Operations that process each element on its own and broadcast their operands."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from revacnn_lightning.steering.tracing.labels import Label, align_label, labeled_dims
from revacnn_lightning.steering.tracing.records import OpCall
from revacnn_lightning.steering.tracing.rules.table import register_rule
from revacnn_lightning.steering.tracing.trace import Trace

__all__ = ["couple_broadcast_labels", "pointwise_rule"]


def pointwise_rule(trace: Trace, call: OpCall) -> None:
    """Couple the channels that meet at one position of broadcast operands."""
    if not call.outs:
        return
    out = call.outs[0]
    if call.is_inplace and call.tensors and not trace.labels(call.args[0]):
        if call.base == "copy" and _label_whole(trace, *call.args[:2]):
            return
        for tensor in call.tensors[1:]:
            for label in trace.labels(tensor):
                trace.fix(label, f"are written into a tensor of fixed size in {trace.where()}")
        return
    if len(call.tensors) == 1:  # relu and the like: no channels meet
        joined = trace.labels(call.tensors[0])
    else:
        joined = _joined(trace, call.tensors, out.ndim)
    for each in call.outs:
        if each.shape == out.shape:
            trace.set_labels(each, list(joined))


def _label_whole(trace: Trace, part: Tensor, written: Tensor) -> bool:
    """Label an uninitialized tensor that is written in part, as a circular padding does.

    Its size follows that of what is written, or the forward fails after an edit.

    Returns:
        Whether the part has all of the channels.
    """
    whole = trace.uninitialized_whole(part)
    if whole is None or whole.ndim != part.ndim or written.shape != part.shape:
        return False
    labels = trace.labels(written)
    if not all(part.shape[d] == whole.shape[d] for label in labels for d in labeled_dims(label)):
        return False
    trace.set_labels(whole, list(labels))
    return True


@register_rule("mse_loss", "smooth_l1_loss", "huber_loss")
def _loss(trace: Trace, call: OpCall) -> None:
    """Couple the channels of both operands, and those that one mean or sum depends on."""
    joined = _joined(trace, call.args[:2], call.args[0].ndim)
    if call.out.ndim:
        trace.set_labels(call.out, joined)
        return
    for label in joined:
        trace.normalize_together(label, f"aten.{call.base} in {trace.where()} reduces over them")


def _joined(trace: Trace, tensors: Sequence[Tensor], ndim: int) -> list[Label]:
    """Return the labels of the result of broadcast operands; those at constants become fixed.

    Those of parameters that meet the height and width of an activation end here.
    """
    joined = couple_broadcast_labels(trace, tensors, ndim)
    fixed = _fix_at_constants(trace, tensors, joined, ndim)
    if not any(trace.is_produced(label) for label in joined):
        return joined
    return [label for label in joined if id(label) not in fixed or trace.is_produced(label)]


def couple_broadcast_labels(trace: Trace, tensors: Sequence[Tensor], ndim: int) -> list[Label]:
    """Couple the labels of broadcast operands where they overlap, and return the result's labels.

    A label of channels that filters produce takes precedence over one of a parameter: what arrives
    at the next layer is the filter.
    """
    joined: list[Label] = []
    for tensor in tensors:
        for unaligned in trace.labels(tensor):
            label = align_label(unaligned, ndim)
            dims = labeled_dims(label)
            for i, other in enumerate(joined):
                if not _meet(dims, labeled_dims(other)):
                    continue
                joined[i] = _without_groups(trace, label, other)
                break
            else:
                joined.append(label)
    return joined


def _meet(left: frozenset[int], right: frozenset[int]) -> bool:
    """Return whether channels over these dimensions meet, not only their groups.

    The last dimension is that of the channels: scores of attention have channels of two kinds, over
    (heads, rows) and (heads, columns).
    """
    return bool(left & right) and (max(left) in right or max(right) in left)


def _without_groups(trace: Trace, new: Label, old: Label) -> Label:
    """Return the label of two that overlap: coupled, or that of the channels in groups.

    Edits change the number of channels in each group, not that of the groups.
    """
    for groups, channels in ((new, old), (old, new)):
        dims = labeled_dims(channels)
        if labeled_dims(groups) < dims and max(dims) not in labeled_dims(groups):
            trace.fix(groups, f"are one for each group of channels in {trace.where()}")
            return channels
    trace.couple(new, old)
    return _label_of_both(trace, new, old)


def _label_of_both(trace: Trace, new: Label, old: Label) -> Label:
    """Return the label of the result of an operation on channels of two coupled labels."""
    new_dims, old_dims = labeled_dims(new), labeled_dims(old)
    if new_dims == old_dims:
        new_is_produced, old_is_produced = trace.is_produced(new), trace.is_produced(old)
        if new_is_produced and not old_is_produced:
            trace.record_arrival(old, new)
            return new
        if old_is_produced and not new_is_produced:
            trace.record_arrival(new, old)
        elif not new_is_produced and trace.product_priority(new) > trace.product_priority(old):
            return new  # of the tensors that a weight is computed from, the main one
        return old
    if new_dims < old_dims:
        return old
    if old_dims < new_dims:
        return new
    return old.expand(torch.broadcast_shapes(old.shape, new.shape))


def _fix_at_constants(
    trace: Trace, tensors: Sequence[Tensor], joined: list[Label], ndim: int
) -> set[int]:
    """Fix channels that meet an unlabeled operand of the same size, which no edit can resize.

    Returns:
        The ids of their labels.
    """
    fixed = set()
    for tensor in tensors:
        if trace.is_uniform(tensor) or tensor.numel() == 1:
            continue
        lead = ndim - tensor.ndim
        wide = {d + lead for d, size in enumerate(tensor.shape) if size > 1}
        wide -= {d + lead for d in _expanded_dims(tensor)}
        own = [labeled_dims(align_label(label, ndim)) for label in trace.labels(tensor)]
        for label in joined:
            dims = labeled_dims(label)
            if dims & wide and not any(dims & each for each in own):
                trace.fix(
                    label,
                    f"meet a tensor of fixed size in {trace.where()} (aten operation of {ndim} "
                    "dimensions)",
                )
                fixed.add(id(label))
    return fixed


def _expanded_dims(tensor: Tensor) -> list[int]:
    """Return the dimensions along which all elements are one, as after ``expand_as``."""
    if tensor.layout != torch.strided:
        return []
    return [d for d, stride in enumerate(tensor.stride()) if stride == 0]
