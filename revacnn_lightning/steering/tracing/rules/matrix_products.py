"""Rules of linear layers, other matrix products and embeddings."""

from __future__ import annotations

from torch import Tensor

from revacnn_lightning.steering.tracing.labels import Label, label_along, labeled_dims
from revacnn_lightning.steering.tracing.records import OpCall
from revacnn_lightning.steering.tracing.rules.attention import (
    has_channels_per_head,
    per_head_matmul_rule,
)
from revacnn_lightning.steering.tracing.rules.convolutions import (
    couple_bias,
    fix_if_only_one_labeled,
    why_unlabeled,
)
from revacnn_lightning.steering.tracing.rules.rounding import matmul_rounding_unit
from revacnn_lightning.steering.tracing.rules.table import fix_inputs, register_rule
from revacnn_lightning.steering.tracing.trace import Trace

__all__: list[str] = []


@register_rule("addmm")
def _addmm(trace: Trace, call: OpCall) -> None:
    _matrix_product(trace, call, call.args[1], call.args[2], call.args[0])


@register_rule("mm", "bmm")
def _mm(trace: Trace, call: OpCall) -> None:
    _matrix_product(trace, call, call.args[0], call.args[1], None)


@register_rule("baddbmm")
def _baddbmm(trace: Trace, call: OpCall) -> None:
    if trace.labels(call.args[0]):
        fix_inputs(trace, call)
    else:
        _matrix_product(trace, call, call.args[1], call.args[2], None)


def _matrix_product(
    trace: Trace, call: OpCall, x: Tensor, weight: Tensor, bias: Tensor | None
) -> None:
    """(…, N, K) x (…, K, M) -> (…, N, M): the weight reads K channels and produces M."""
    last = x.ndim - 1
    if has_channels_per_head(trace, x) or has_channels_per_head(trace, weight):
        per_head_matmul_rule(trace, call, x, weight)
        return
    arriving = trace.channels_along(x, last)
    inner, produced = trace.channels_along(weight, last - 1), trace.channels_along(weight, last)
    for label in trace.labels(x):
        if len(labeled_dims(label)) > 1:
            trace.fix(label, f"are interleaved before {trace.where()}")
    name = trace.record_linear(call.out, x, produced)
    trace.rounding_unit = max(trace.rounding_unit, matmul_rounding_unit(call.out))
    if inner is not None and arriving is not None:
        trace.activity.record(x, last, arriving)
        trace.record_reading_columns(inner, arriving)
    else:
        fix_if_only_one_labeled(trace, arriving, inner)
    labels: list[Label] = []
    if produced is not None:
        trace.record_producing_rows(produced)
        labels.append(label_along(produced, call.out.ndim, call.out.ndim - 1))
        couple_bias(trace, bias, -1, produced)
    if name is not None and produced is not None:
        trace.filters.setdefault(name, produced.numpy())
    elif name is not None:
        trace.unlabeled[name] = why_unlabeled(call.out.shape[-1])
    for label in trace.labels(x):
        dims = labeled_dims(label)
        if len(dims) == 1 and last not in dims:
            labels.append(label)
    trace.set_labels(call.out, labels)


@register_rule("mv")
def _matrix_vector(trace: Trace, call: OpCall) -> None:
    """(N, K) x (K,) -> (N,), as a spectral norm computes it: the sum depends on all columns."""
    matrix, vector = call.args[:2]
    columns, entries = trace.channels_along(matrix, 1), trace.channels_along(vector, 0)
    if columns is not None and entries is not None:
        trace.couple_arrival(entries, columns)
        trace.normalize_together(columns, f"{trace.where()} sums over them")
    else:
        fix_if_only_one_labeled(trace, columns, entries)
    rows = trace.channels_along(matrix, 0)
    trace.set_labels(call.out, [] if rows is None else [rows])


@register_rule("dot", "vdot")
def _dot(trace: Trace, call: OpCall) -> None:
    left, right = (trace.channels_along(each, 0) for each in call.args[:2])
    if left is not None and right is not None:
        trace.couple_arrival(left, right)
        trace.normalize_together(right, f"{trace.where()} sums over them")
    else:
        fix_if_only_one_labeled(trace, left, right)


@register_rule("embedding")
def _embedding(trace: Trace, call: OpCall) -> None:
    produced = trace.channels_along(call.args[0], 1)
    if produced is not None:
        trace.record_producing_rows(produced)
        trace.set_labels(call.out, [label_along(produced, call.out.ndim, call.out.ndim - 1)])
