"""Rules of pooling and resizing, of reductions, and of operations along one dimension."""

from __future__ import annotations

from collections.abc import Sequence

from revacnn_lightning.steering.tracing.labels import Label, labeled_dims, normalize_dims
from revacnn_lightning.steering.tracing.records import OpCall
from revacnn_lightning.steering.tracing.rules.op_families import SPATIAL
from revacnn_lightning.steering.tracing.rules.table import fix_inputs, register_rule
from revacnn_lightning.steering.tracing.trace import Trace

__all__ = ["reduction_rule", "spatial_rule"]


def spatial_rule(trace: Trace, call: OpCall) -> None:
    """Keep labels over anything but the pooled or resized dimensions."""
    x = call.args[0]
    space = set(range(x.ndim - SPATIAL[call.base], x.ndim))
    kept = []
    for label in trace.labels(x):
        if labeled_dims(label) & space:
            trace.fix(label, f"are pooled or resized as space in {trace.where()}")
        else:
            kept.append(label)
    for out in call.outs:
        trace.set_labels(out, list(kept))


def reduction_rule(trace: Trace, call: OpCall) -> None:
    """Keep labels over dimensions that remain; channels that are reduced depend on each other."""
    x = call.args[0]
    position = 2 if call.base in ("linalg_vector_norm", "norm") else 1
    reduced = normalize_dims(call.argument(position, "dim"), x.ndim)
    if reduced is None:
        fix_inputs(trace, call)
        return
    kept = []
    for full in trace.labels(x):
        label = _of_one_group(trace, full, reduced)
        if labeled_dims(label) & set(reduced):
            trace.normalize_together(
                label, f"aten.{call.base} in {trace.where()} reduces over them"
            )
        elif call.outs[0].ndim == x.ndim:
            kept.append(label)
        else:
            shape = [size for d, size in enumerate(label.shape) if d not in reduced]
            kept.append(label.reshape(shape))
    for out in call.outs:
        trace.set_labels(out, list(kept))


def _of_one_group(trace: Trace, label: Label, dims: Sequence[int]) -> Label:
    """Couple the groups of a label over (groups, channels per group) and return that of the first.

    Only if ``dims`` contains the groups' dimension: the result of an operation over the groups
    depends on all of them alike.
    """
    for dim in sorted(labeled_dims(label))[:-1]:
        if dim in dims:
            first = label.narrow(dim, 0, 1)
            trace.couple(first, label)
            label = first
    return label


@register_rule("_softmax", "_log_softmax", "softmax", "log_softmax")
def _softmax(trace: Trace, call: OpCall) -> None:
    """Channels of a softmax over channels stay in place, but each depends on all others."""
    x = call.args[0]
    dim = call.argument(1, "dim") % x.ndim
    kept = []
    for full in trace.labels(x):
        label = _of_one_group(trace, full, [dim])
        if dim in labeled_dims(label):
            trace.normalize_together(label, f"a softmax in {trace.where()} normalizes over them")
        kept.append(label)
    trace.set_labels(call.out, kept)


@register_rule("cumsum", "cumprod", "sort", "topk")
def _along_one_dim(trace: Trace, call: OpCall) -> None:
    x = call.args[0]
    default = -1 if call.base in ("sort", "topk") else 0
    dim = call.argument(2 if call.base == "topk" else 1, "dim", default) % x.ndim
    kept = []
    for full in trace.labels(x):
        label = _of_one_group(trace, full, [dim])
        if dim in labeled_dims(label):
            trace.fix(label, f"pass aten.{call.base} in {trace.where()}")
        else:
            kept.append(label)
    for out in call.outs:
        trace.set_labels(out, list(kept))
