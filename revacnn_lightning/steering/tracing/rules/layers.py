"""Layers with weights: who makes channels, who reads them, who normalises them."""

from __future__ import annotations

import torch
from torch import Tensor

from revacnn_lightning.steering.tracing.labels import Component, along, dims
from revacnn_lightning.steering.tracing.records import OpCall
from revacnn_lightning.steering.tracing.rules.elementwise import join
from revacnn_lightning.steering.tracing.rules.operations import BATCH_NORMS
from revacnn_lightning.steering.tracing.rules.table import rule, unknown
from revacnn_lightning.steering.tracing.trace import Trace

__all__: list[str] = []


@rule("convolution", "_convolution", "convolution_overrideable")
def _convolution(trace: Trace, call: OpCall) -> None:
    x, weight, bias = call.args[:3]
    transposed, groups = call.args[6], call.args[8]
    name = trace.start_at_conv(call.out, x)
    trace.epsilon = max(trace.epsilon, _rounding_unit(call.out))
    for component in trace.labels(x):
        if dims(component) - {0, 1}:
            trace.pin(component, f"are treated as space by {trace.where()}")
    arriving = trace.line(x, 1)
    rows, columns = trace.line(weight, 0), trace.line(weight, 1)
    if arriving is not None and not (groups > 1 and groups == x.shape[1] and not transposed):
        trace.look_alive(x, 1, arriving)
    if transposed:
        made = _transposed(trace, arriving, rows, columns, groups)
        own = made
    elif groups > 1 and groups == x.shape[1]:
        made, own = _depthwise(trace, arriving, rows, groups), rows
    else:
        made = own = _grouped(trace, arriving, rows, columns, groups)
    if bias is not None and made is not None:
        of_bias = trace.line(bias, 0)
        if of_bias is not None:
            trace.union(of_bias, made)
            trace.arrive(of_bias, made)
    if name is not None and own is not None:
        trace.filters[name] = own.numpy()
    batch = [c for c in trace.labels(x) if dims(c) == {0}]
    trace.label(call.out, ([along(made, call.out.ndim, 1)] if made is not None else []) + batch)


def _grouped(
    trace: Trace,
    arriving: Tensor | None,
    rows: Tensor | None,
    columns: Tensor | None,
    groups: int,
) -> Tensor | None:
    """weight (C_out, C_in / groups, …): each group has its own rows, columns are shared in name."""
    if rows is not None:
        trace.emit(rows)
        if groups > 1:
            per_group = rows.view(groups, -1)
            trace.union(per_group[:1], per_group)
    if columns is not None and arriving is not None:
        per_group = arriving.view(groups, -1)
        trace.consume(columns, per_group[0])
        trace.union(columns[None], per_group)
    else:
        _pin_unmatched(trace, arriving, columns)
    return rows


def _transposed(
    trace: Trace,
    arriving: Tensor | None,
    rows: Tensor | None,
    columns: Tensor | None,
    groups: int,
) -> Tensor | None:
    """weight (C_in, C_out / groups, …)."""
    if rows is not None and arriving is not None:
        trace.consume(rows, arriving)
        if groups > 1:
            per_group = rows.view(groups, -1)
            trace.union(per_group[:1], per_group)
    else:
        _pin_unmatched(trace, arriving, rows)
    if columns is None:
        return None
    trace.emit(columns)
    return columns.repeat(groups)


def _depthwise(
    trace: Trace, arriving: Tensor | None, rows: Tensor | None, groups: int
) -> Tensor | None:
    """Channel i passes through filters i·m … i·m + m - 1 of its own."""
    if rows is None or arriving is None:
        _pin_unmatched(trace, arriving, rows)
        return rows
    through = arriving.repeat_interleave(len(rows) // groups)
    trace.emit(rows)
    trace.union(rows, through)
    trace.arrive(rows, through)
    return through


def _pin_unmatched(trace: Trace, arriving: Tensor | None, columns: Tensor | None) -> None:
    for atoms, reason in (
        (columns, f"{trace.where()} reads channels that no layer makes"),
        (arriving, f"are read by {trace.where()}, whose weight could not be followed"),
    ):
        if atoms is not None:
            trace.pin(atoms, reason)


@rule("addmm")
def _addmm(trace: Trace, call: OpCall) -> None:
    _matrix_product(trace, call, call.args[1], call.args[2], call.args[0])


@rule("mm", "bmm")
def _mm(trace: Trace, call: OpCall) -> None:
    _matrix_product(trace, call, call.args[0], call.args[1], None)


@rule("baddbmm")
def _baddbmm(trace: Trace, call: OpCall) -> None:
    if trace.labels(call.args[0]):
        unknown(trace, call)
    else:
        _matrix_product(trace, call, call.args[1], call.args[2], None)


def _matrix_product(
    trace: Trace, call: OpCall, x: Tensor, weight: Tensor, bias: Tensor | None
) -> None:
    """(…, N, K) x (…, K, M) -> (…, N, M)."""
    ndim = x.ndim
    arriving = trace.line(x, ndim - 1)
    inner, made = trace.line(weight, ndim - 2), trace.line(weight, ndim - 1)
    for component in trace.labels(x):
        if len(dims(component)) > 1:
            trace.pin(component, f"are interleaved before {trace.where()}")
    if inner is not None and arriving is not None:
        trace.look_alive(x, ndim - 1, arriving)
        trace.consume(inner, arriving)
    else:
        _pin_unmatched(trace, arriving, inner)
    result: list[Component] = []
    if made is not None:
        trace.emit(made)
        result.append(along(made, call.out.ndim, call.out.ndim - 1))
        of_bias = trace.line(bias, bias.ndim - 1) if bias is not None else None
        if of_bias is not None:
            trace.union(of_bias, made)
            trace.arrive(of_bias, made)
    result += [c for c in trace.labels(x) if len(dims(c)) == 1 and ndim - 1 not in dims(c)]
    trace.label(call.out, result)


@rule(*BATCH_NORMS)
def _batch_norm(trace: Trace, call: OpCall) -> None:
    x = call.args[0]
    arriving = trace.line(x, 1)
    for tensor in call.args[1:5]:
        if isinstance(tensor, Tensor):
            own = trace.line(tensor, 0)
            if own is None:
                continue
            if arriving is None:
                trace.pin(own, f"{trace.where()} normalises channels that no layer makes")
            else:
                trace.union(own, arriving)
                trace.arrive(own, arriving)
    sources = trace.sources(x)
    if len(sources) == 1 and trace.module_name():
        (conv,) = sources
        if len(trace.filters.get(conv, ())) == x.shape[1]:
            trace.norm_after.setdefault(conv, set()).add(trace.module_name())
    trace.label(call.outs[0], list(trace.labels(x)))


@rule("native_layer_norm", "_fused_rms_norm", "rms_norm", "layer_norm")
def _layer_norm(trace: Trace, call: OpCall) -> None:
    x, shape = call.args[:2]
    over = set(range(x.ndim - len(shape), x.ndim))
    affine = [t for t in call.args[2:4] if isinstance(t, Tensor)]
    for component in trace.labels(x):
        if dims(component) & over:
            trace.mix(component, f"{trace.where()} normalises over them")
    trace.label(call.outs[0], join(trace, [x, *affine], x.ndim))


@rule("native_group_norm", "group_norm")
def _group_norm(trace: Trace, call: OpCall) -> None:
    x, weight, bias = call.args[:3]
    groups = int(call.args[6]) if call.base == "native_group_norm" else int(call.args[1])
    arriving = trace.line(x, 1)
    if arriving is not None:
        for tensor in (weight, bias):
            own = trace.line(tensor, 0) if isinstance(tensor, Tensor) else None
            if own is not None:
                trace.union(arriving, own)
                trace.arrive(own, arriving)
        trace.mix(arriving, f"{trace.where()} normalises over them")
        per_group = arriving.view(groups, -1)
        if per_group.shape[0] > 1:
            trace.union(per_group[:1], per_group)
    trace.label(call.outs[0], list(trace.labels(x)))


@rule("_weight_norm_interface")
def _weight_norm(trace: Trace, call: OpCall) -> None:
    """w = g v / |v| (Salimans & Kingma 2016); g has size 1 in every dimension but ``dim``."""
    direction, gain = call.args[:2]
    # A new column of zeros leaves |v| as it was, so nothing is normalised together.
    trace.label(call.outs[0], join(trace, [direction, gain], direction.ndim))


@rule("embedding")
def _embedding(trace: Trace, call: OpCall) -> None:
    made = trace.line(call.args[0], 1)
    if made is not None:
        trace.emit(made)
        trace.label(call.out, [along(made, call.out.ndim, call.out.ndim - 1)])


def _rounding_unit(tensor: Tensor) -> float:
    """Of the arithmetic that made this output of a conv.

    On Nvidia GPUs torch multiplies single precision as TF32, with 10 bits of mantissa, unless it
    was told not to.
    """
    if tensor.dtype == torch.float32 and tensor.device.type == "cuda":
        precision = getattr(getattr(torch.backends.cudnn, "conv", None), "fp32_precision", None)
        if precision is None:  # torch before 2.9
            precision = "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"
        if precision != "ieee":
            return 2.0**-10
    return float(torch.finfo(tensor.dtype).eps) if tensor.is_floating_point() else 0.0
