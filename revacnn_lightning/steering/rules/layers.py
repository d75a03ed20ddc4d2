"""Layers with weights: who makes channels, who reads them, who normalises them."""

from __future__ import annotations

from torch import Tensor

from revacnn_lightning.steering.labels import Component, along, dims
from revacnn_lightning.steering.rules.elementwise import join
from revacnn_lightning.steering.rules.operations import BATCH_NORMS
from revacnn_lightning.steering.rules.table import rule, unknown
from revacnn_lightning.steering.tracer import Call, Tracer, rounding_unit

__all__: list[str] = []


@rule("convolution", "_convolution", "convolution_overrideable")
def _convolution(tracer: Tracer, call: Call) -> None:
    x, weight, bias = call.args[:3]
    transposed, groups = call.args[6], call.args[8]
    name = tracer.start_at_conv(call.out, x)
    tracer.epsilon = max(tracer.epsilon, rounding_unit(call.out))
    for component in tracer.labels(x):
        if dims(component) - {0, 1}:
            tracer.pin(component, f"are treated as space by {tracer.where()}")
    arriving = tracer.line(x, 1)
    rows, columns = tracer.line(weight, 0), tracer.line(weight, 1)
    if arriving is not None and not (groups > 1 and groups == x.shape[1] and not transposed):
        tracer.look_alive(x, 1, arriving)
    if transposed:
        made = _transposed(tracer, arriving, rows, columns, groups)
        own = made
    elif groups > 1 and groups == x.shape[1]:
        made, own = _depthwise(tracer, arriving, rows, groups), rows
    else:
        made = own = _grouped(tracer, arriving, rows, columns, groups)
    if bias is not None and made is not None:
        of_bias = tracer.line(bias, 0)
        if of_bias is not None:
            tracer.union(of_bias, made)
            tracer.arrive(of_bias, made)
    if name is not None and own is not None:
        tracer.filters[name] = own.numpy()
    batch = [c for c in tracer.labels(x) if dims(c) == {0}]
    tracer.label(call.out, ([along(made, call.out.ndim, 1)] if made is not None else []) + batch)


def _grouped(
    tracer: Tracer,
    arriving: Tensor | None,
    rows: Tensor | None,
    columns: Tensor | None,
    groups: int,
) -> Tensor | None:
    """weight (C_out, C_in / groups, …): each group has its own rows, columns are shared in name."""
    if rows is not None:
        tracer.emit(rows)
        if groups > 1:
            per_group = rows.view(groups, -1)
            tracer.union(per_group[:1], per_group)
    if columns is not None and arriving is not None:
        per_group = arriving.view(groups, -1)
        tracer.consume(columns, per_group[0])
        tracer.union(columns[None], per_group)
    else:
        _pin_unmatched(tracer, arriving, columns)
    return rows


def _transposed(
    tracer: Tracer,
    arriving: Tensor | None,
    rows: Tensor | None,
    columns: Tensor | None,
    groups: int,
) -> Tensor | None:
    """weight (C_in, C_out / groups, …)."""
    if rows is not None and arriving is not None:
        tracer.consume(rows, arriving)
        if groups > 1:
            per_group = rows.view(groups, -1)
            tracer.union(per_group[:1], per_group)
    else:
        _pin_unmatched(tracer, arriving, rows)
    if columns is None:
        return None
    tracer.emit(columns)
    return columns.repeat(groups)


def _depthwise(
    tracer: Tracer, arriving: Tensor | None, rows: Tensor | None, groups: int
) -> Tensor | None:
    """Channel i passes through filters i·m … i·m + m - 1 of its own."""
    if rows is None or arriving is None:
        _pin_unmatched(tracer, arriving, rows)
        return rows
    through = arriving.repeat_interleave(len(rows) // groups)
    tracer.emit(rows)
    tracer.union(rows, through)
    tracer.arrive(rows, through)
    return through


def _pin_unmatched(tracer: Tracer, arriving: Tensor | None, columns: Tensor | None) -> None:
    for atoms, reason in (
        (columns, f"{tracer.where()} reads channels that no layer makes"),
        (arriving, f"are read by {tracer.where()}, whose weight could not be followed"),
    ):
        if atoms is not None:
            tracer.pin(atoms, reason)


@rule("addmm")
def _addmm(tracer: Tracer, call: Call) -> None:
    _matrix_product(tracer, call, call.args[1], call.args[2], call.args[0])


@rule("mm", "bmm")
def _mm(tracer: Tracer, call: Call) -> None:
    _matrix_product(tracer, call, call.args[0], call.args[1], None)


@rule("baddbmm")
def _baddbmm(tracer: Tracer, call: Call) -> None:
    if tracer.labels(call.args[0]):
        unknown(tracer, call)
    else:
        _matrix_product(tracer, call, call.args[1], call.args[2], None)


def _matrix_product(
    tracer: Tracer, call: Call, x: Tensor, weight: Tensor, bias: Tensor | None
) -> None:
    """(…, N, K) x (…, K, M) -> (…, N, M)."""
    ndim = x.ndim
    arriving = tracer.line(x, ndim - 1)
    inner, made = tracer.line(weight, ndim - 2), tracer.line(weight, ndim - 1)
    for component in tracer.labels(x):
        if len(dims(component)) > 1:
            tracer.pin(component, f"are interleaved before {tracer.where()}")
    if inner is not None and arriving is not None:
        tracer.look_alive(x, ndim - 1, arriving)
        tracer.consume(inner, arriving)
    else:
        _pin_unmatched(tracer, arriving, inner)
    result: list[Component] = []
    if made is not None:
        tracer.emit(made)
        result.append(along(made, call.out.ndim, call.out.ndim - 1))
        of_bias = tracer.line(bias, bias.ndim - 1) if bias is not None else None
        if of_bias is not None:
            tracer.union(of_bias, made)
            tracer.arrive(of_bias, made)
    result += [c for c in tracer.labels(x) if len(dims(c)) == 1 and ndim - 1 not in dims(c)]
    tracer.label(call.out, result)


@rule(*BATCH_NORMS)
def _batch_norm(tracer: Tracer, call: Call) -> None:
    x = call.args[0]
    arriving = tracer.line(x, 1)
    for tensor in call.args[1:5]:
        if isinstance(tensor, Tensor):
            own = tracer.line(tensor, 0)
            if own is None:
                continue
            if arriving is None:
                tracer.pin(own, f"{tracer.where()} normalises channels that no layer makes")
            else:
                tracer.union(own, arriving)
                tracer.arrive(own, arriving)
    sources = tracer.sources(x)
    if len(sources) == 1 and tracer.module_name():
        (conv,) = sources
        if len(tracer.filters.get(conv, ())) == x.shape[1]:
            tracer.norm_after.setdefault(conv, set()).add(tracer.module_name())
    tracer.label(call.outs[0], list(tracer.labels(x)))


@rule("native_layer_norm", "_fused_rms_norm", "rms_norm", "layer_norm")
def _layer_norm(tracer: Tracer, call: Call) -> None:
    x, shape = call.args[:2]
    over = set(range(x.ndim - len(shape), x.ndim))
    affine = [t for t in call.args[2:4] if isinstance(t, Tensor)]
    for component in tracer.labels(x):
        if dims(component) & over:
            tracer.mix(component, f"{tracer.where()} normalises over them")
    tracer.label(call.outs[0], join(tracer, [x, *affine], x.ndim))


@rule("native_group_norm", "group_norm")
def _group_norm(tracer: Tracer, call: Call) -> None:
    x, weight, bias = call.args[:3]
    groups = int(call.args[6]) if call.base == "native_group_norm" else int(call.args[1])
    arriving = tracer.line(x, 1)
    if arriving is not None:
        for tensor in (weight, bias):
            own = tracer.line(tensor, 0) if isinstance(tensor, Tensor) else None
            if own is not None:
                tracer.union(arriving, own)
                tracer.arrive(own, arriving)
        tracer.mix(arriving, f"{tracer.where()} normalises over them")
        per_group = arriving.view(groups, -1)
        if per_group.shape[0] > 1:
            tracer.union(per_group[:1], per_group)
    tracer.label(call.outs[0], list(tracer.labels(x)))


@rule("_weight_norm_interface")
def _weight_norm(tracer: Tracer, call: Call) -> None:
    """w = g v / |v| (Salimans & Kingma 2016); g has size 1 in every dimension but ``dim``."""
    direction, gain = call.args[:2]
    # A new column of zeros leaves |v| as it was, so nothing is normalised together.
    tracer.label(call.outs[0], join(tracer, [direction, gain], direction.ndim))


@rule("embedding")
def _embedding(tracer: Tracer, call: Call) -> None:
    made = tracer.line(call.args[0], 1)
    if made is not None:
        tracer.emit(made)
        tracer.label(call.out, [along(made, call.out.ndim, call.out.ndim - 1)])
