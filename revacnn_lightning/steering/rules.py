"""What each operation does to channels: one rule per aten operation or family of them.

A rule reads the labels of a call's inputs and writes those of its outputs. No rule guesses: what
is not understood is pinned, and an operation that is in no table pins everything it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from revacnn_lightning.steering.labels import (
    Component,
    aligned,
    along,
    compress,
    dims,
    normalised,
)
from revacnn_lightning.steering.operations import (
    BATCH_NORMS,
    COPIES,
    CREATIONS,
    NOISE,
    POINTWISE,
    REDUCTIONS,
    RESHAPES,
    SILENT,
    SPATIAL,
    VIEWS,
)
from revacnn_lightning.steering.tracer import Call, Tracer, rounding_unit

__all__ = ["apply_rule"]

Rule = Callable[[Tracer, Call], None]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule of these aten operations."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def apply_rule(tracer: Tracer, call: Call) -> None:
    """Find the rule of a call and follow it."""
    base = call.base
    if base in CREATIONS:
        for out in call.outs:
            tracer.mark_uniform(out)
        return
    labelled = any(tracer.labels(t) for t in call.tensors)
    found = RULES.get(base)
    if not labelled:
        _without_labels(tracer, call, found)
    elif found is not None:
        found(tracer, call)
    elif base in COPIES:
        for out in call.outs:
            tracer.label(out, list(tracer.labels(call.args[0])))
    elif base in VIEWS:
        _view(tracer, call)
    elif base in SPATIAL:
        _spatial(tracer, call)
    elif base in REDUCTIONS and not _is_binary(call):
        _reduce(tracer, call)
    elif base in POINTWISE or torch.Tag.pointwise in call.func.tags:
        _pointwise(tracer, call)
    elif base not in SILENT:
        _unknown(tracer, call)


def _without_labels(tracer: Tracer, call: Call, found: Rule | None) -> None:
    """Noise and constants stay so under pointwise operations and copies."""
    if call.base in NOISE or (
        call.tensors
        and found is None
        and (call.base in COPIES or torch.Tag.pointwise in call.func.tags)
        and all(t.numel() == 1 or tracer.is_uniform(t) for t in call.tensors)
    ):
        for out in call.outs:
            tracer.mark_uniform(out)


def _is_binary(call: Call) -> bool:
    """max(x, y) is pointwise, max(x, dim) reduces."""
    return len(call.args) > 1 and isinstance(call.args[1], Tensor)


def _unknown(tracer: Tracer, call: Call) -> None:
    for tensor in call.tensors:
        for component in tracer.labels(tensor):
            tracer.pin(component, f"are read by aten.{call.base} in {tracer.where()}, which is "
                                  "no operation whose channels can be followed")  # fmt: skip


# -------------------------------------------------------------------- elementwise


def _pointwise(tracer: Tracer, call: Call) -> None:
    """Broadcast operands: what meets at one place belongs together."""
    if not call.outs:
        return
    out = call.outs[0]
    if call.inplace and call.tensors and not tracer.labels(call.args[0]):
        for tensor in call.tensors[1:]:
            for component in tracer.labels(tensor):
                tracer.pin(component, f"are written into a tensor of fixed size in "
                                      f"{tracer.where()}")  # fmt: skip
        return
    joined = _join(tracer, call.tensors, out.ndim)
    _pin_constants(tracer, call.tensors, joined, out.ndim)
    for each in call.outs:
        if each.shape == out.shape:
            tracer.label(each, list(joined))


def _join(tracer: Tracer, tensors: Sequence[Tensor], ndim: int) -> list[Component]:
    """The components of a broadcast result; the operands' are united where they overlap.

    A component that conv filters emitted stands for the result before one of a parameter: what
    arrives further on is the filter.
    """
    joined: list[Component] = []
    for tensor in tensors:
        for raw in tracer.labels(tensor):
            component = aligned(raw, ndim)
            said = dims(component)
            for i, other in enumerate(joined):
                theirs = dims(other)
                if said & theirs:
                    tracer.union(component, other)
                    joined[i] = _stands_for_both(tracer, component, other)
                    break
            else:
                joined.append(component)
    return joined


def _stands_for_both(tracer: Tracer, new: Component, old: Component) -> Component:
    said, theirs = dims(new), dims(old)
    if said == theirs:
        new_emitted, old_emitted = tracer.is_emitted(new), tracer.is_emitted(old)
        if new_emitted and not old_emitted:
            tracer.arrive(old, new)
            return new
        if old_emitted and not new_emitted:
            tracer.arrive(new, old)
        return old
    if said < theirs:
        return old
    if theirs < said:
        return new
    return old.expand(torch.broadcast_shapes(old.shape, new.shape))


def _pin_constants(
    tracer: Tracer, tensors: Sequence[Tensor], joined: list[Component], ndim: int
) -> None:
    """An operand without labels along a labelled dimension has a size nobody can edit."""
    for tensor in tensors:
        if tracer.is_uniform(tensor) or tensor.numel() == 1:
            continue
        lead = ndim - tensor.ndim
        wide = {d + lead for d, size in enumerate(tensor.shape) if size > 1}
        known = [dims(aligned(c, ndim)) for c in tracer.labels(tensor)]
        for component in joined:
            said = dims(component)
            if said & wide and not any(said & k for k in known):
                tracer.pin(component, f"meet a tensor of fixed size in {tracer.where()} "
                                      f"(aten operation of {ndim} dimensions)")  # fmt: skip


# -------------------------------------------------------------------- views


def _view(tracer: Tracer, call: Call) -> None:
    """Run the same view on the labels; pieces of an equal split stay equal."""
    x = call.args[0]
    outs = list(call.out) if isinstance(call.out, (list, tuple)) else [call.out]
    results: list[list[Component]] = [[] for _ in outs]
    for component in tracer.labels(x):
        parts = _viewed(call, component, x, outs)
        if parts is None:
            tracer.pin(component, f"are rearranged by aten.{call.base} in {tracer.where()}")
            continue
        _tie_parts(tracer, call, component, parts)
        for result, part in zip(results, parts, strict=True):
            result.append(part)
    for out, result in zip(outs, results, strict=True):
        tracer.label(out, result)


def _viewed(
    call: Call, component: Component, x: Tensor, outs: list[Tensor]
) -> list[Component] | None:
    full = component.expand(x.shape)
    try:
        made = call.func(full, *call.args[1:], **call.kwargs)
    except RuntimeError:  # a view that these strides do not allow
        if call.base not in RESHAPES:
            return None
        made = full.reshape(outs[0].shape)
    parts = list(made) if isinstance(made, (list, tuple)) else [made]
    return [compress(part) for part in parts]


def _tie_parts(tracer: Tracer, call: Call, component: Component, parts: list[Component]) -> None:
    said = dims(component)
    if len(said) != 1:
        return
    if call.base == "split" and len({p.shape for p in parts}) == 1:
        dim = call.get(2, "dim", 0) % component.ndim
        if dim in said:
            for part in parts[1:]:
                tracer.union(parts[0], part)
    if call.base in RESHAPES and len(dims(parts[0])) == 2:
        # C -> (g, C / g): the same position of every group, so that it stays a rectangle
        outer = min(dims(parts[0]))
        tracer.union(parts[0].narrow(outer, 0, 1), parts[0])


@rule("pixel_shuffle")
def _pixel_shuffle(tracer: Tracer, call: Call) -> None:
    """(…, C r², H, W) -> (…, C, H r, W r): the r² filters behind one output channel."""
    x, r = call.args[0], int(call.args[1])
    dim = x.ndim - 3
    atoms = tracer.line(x, dim)
    if atoms is not None:
        phases = atoms.view(-1, r * r)
        tracer.union(phases[:, :1], phases)
        tracer.label(call.out, [along(phases[:, 0], call.out.ndim, dim)])


@rule("pixel_unshuffle")
def _pixel_unshuffle(tracer: Tracer, call: Call) -> None:
    x, r = call.args[0], int(call.args[1])
    dim = x.ndim - 3
    atoms = tracer.line(x, dim)
    if atoms is not None:
        tracer.label(call.out, [along(atoms.repeat_interleave(r * r), call.out.ndim, dim)])


@rule("im2col")
def _unfold(tracer: Tracer, call: Call) -> None:
    """(B, C, H, W) -> (B, C·k·k, L): the kernel's positions of one channel stand together."""
    x = call.args[0]
    atoms = tracer.line(x, x.ndim - 3)
    if atoms is not None:
        made = atoms.repeat_interleave(call.out.shape[-2] // len(atoms))
        tracer.label(call.out, [along(made, call.out.ndim, call.out.ndim - 2)])


@rule("index")
def _index(tracer: Tracer, call: Call) -> None:
    """x[:, [2, 0, 1]]: fixed indices. Fine along any dimension but a labelled one."""
    x, indices = call.args[:2]
    touched = {d for d, index in enumerate(indices) if index is not None}
    carried = []
    for component in tracer.labels(x):
        if dims(component) & touched:
            tracer.pin(component, f"are picked by fixed indices in {tracer.where()}")
        else:
            carried.append(compress(call.func(component.expand(x.shape), indices)))
    tracer.label(call.out, carried)


@rule("cat")
def _cat(tracer: Tracer, call: Call) -> None:
    """Along a labelled dimension the labels are concatenated; what has none is constant."""
    dim = call.get(1, "dim", 0) % call.out.ndim
    tensors = [t for t in call.args[0] if t.numel()]
    lines = [[c for c in tracer.labels(t) if dim in dims(c)] for t in tensors]
    others = [[c for c in tracer.labels(t) if dim not in dims(c)] for t in tensors]
    result = _unite_by_dims(tracer, [c for group in others for c in group])
    if any(lines):
        pieces = []
        for tensor, group in zip(tensors, lines, strict=True):
            for extra in group[1:]:
                tracer.pin(extra, f"are concatenated in {tracer.where()}")
            size = tensor.shape[dim]
            if group:
                pieces.append(group[0])
            else:
                reason = f"are joined to channels that no layer makes, in {tracer.where()}"
                pieces.append(along(tracer.constant(size, reason), tensor.ndim, dim))
        result.append(_concatenated(pieces, dim))
    tracer.label(call.out, result)


def _concatenated(pieces: list[Component], dim: int) -> Component:
    common = torch.broadcast_shapes(
        *[tuple(1 if d == dim else s for d, s in enumerate(p.shape)) for p in pieces]
    )
    wide = [p.expand([p.shape[dim] if d == dim else s for d, s in enumerate(common)])
            for p in pieces]  # fmt: skip
    return torch.cat(wide, dim)


def _unite_by_dims(tracer: Tracer, components: list[Component]) -> list[Component]:
    by_dims: dict[frozenset[int], Component] = {}
    for component in components:
        first = by_dims.setdefault(dims(component), component)
        if first is not component:
            tracer.union(first, component)
    return list(by_dims.values())


@rule("stack")
def _stack(tracer: Tracer, call: Call) -> None:
    dim = call.get(1, "dim", 0) % call.out.ndim
    components = [c.unsqueeze(dim) for t in call.args[0] for c in tracer.labels(t)]
    tracer.label(call.out, _unite_by_dims(tracer, components))


@rule("constant_pad_nd")
def _constant_pad(tracer: Tracer, call: Call) -> None:
    """Padding rows and columns is harmless; padding channels fixes their number."""
    x, pad = call.args[:2]
    touched = {x.ndim - 1 - i // 2 for i, amount in enumerate(pad) if amount}
    kept = []
    for component in tracer.labels(x):
        if dims(component) & touched:
            tracer.pin(component, f"are padded with constant channels in {tracer.where()}")
        else:
            kept.append(component)
    tracer.label(call.out, kept)


@rule("as_strided")
def _as_strided(tracer: Tracer, call: Call) -> None:
    """In place it only restrides (memory format); otherwise anything may overlap anything."""
    if not (call.inplace and call.out.shape == call.args[0].shape):
        _unknown(tracer, call)


# -------------------------------------------------------------------- spatial, reductions


def _spatial(tracer: Tracer, call: Call) -> None:
    x = call.args[0]
    space = set(range(x.ndim - SPATIAL[call.base], x.ndim))
    kept = []
    for component in tracer.labels(x):
        if dims(component) & space:
            tracer.pin(component, f"are pooled or resized as space in {tracer.where()}")
        else:
            kept.append(component)
    for out in call.outs:
        tracer.label(out, list(kept))


def _reduce(tracer: Tracer, call: Call) -> None:
    x = call.args[0]
    at, name = (2, "dim") if call.base in ("linalg_vector_norm", "norm") else (1, "dim")
    listed = normalised(call.get(at, name), x.ndim)
    if listed is None:
        _unknown(tracer, call)
        return
    kept = []
    for labelled in tracer.labels(x):
        component = _without_groups(tracer, labelled, listed)
        if dims(component) & set(listed):
            tracer.mix(component, f"aten.{call.base} in {tracer.where()} reduces over them")
        elif call.outs[0].ndim == x.ndim:
            kept.append(component)
        else:
            kept.append(component.reshape([s for d, s in enumerate(component.shape)
                                           if d not in listed]))  # fmt: skip
    for out in call.outs:
        tracer.label(out, list(kept))


def _without_groups(tracer: Tracer, component: Component, over: Sequence[int]) -> Component:
    """Of a component over (groups, channels per group), that of one group.

    What an operation over the groups makes of them belongs to all of them alike.
    """
    for dim in sorted(dims(component))[:-1]:
        if dim in over:
            first = component.narrow(dim, 0, 1)
            tracer.union(first, component)
            component = first
    return component


@rule("_softmax", "_log_softmax", "softmax", "log_softmax", "cumsum", "cumprod", "sort", "topk")
def _over_one_dim(tracer: Tracer, call: Call) -> None:
    x = call.args[0]
    default = -1 if call.base in ("sort", "topk") else 0
    dim = call.get(2 if call.base == "topk" else 1, "dim", default) % x.ndim
    kept = []
    for labelled in tracer.labels(x):
        component = _without_groups(tracer, labelled, [dim])
        if dim in dims(component):
            tracer.pin(component, f"pass aten.{call.base} in {tracer.where()}")
        else:
            kept.append(component)
    for out in call.outs:
        tracer.label(out, list(kept))


# -------------------------------------------------------------------- layers


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
        _unknown(tracer, call)
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
    tracer.label(call.outs[0], _join(tracer, [x, *affine], x.ndim))


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
    tracer.label(call.outs[0], _join(tracer, [direction, gain], direction.ndim))


@rule("embedding")
def _embedding(tracer: Tracer, call: Call) -> None:
    made = tracer.line(call.args[0], 1)
    if made is not None:
        tracer.emit(made)
        tracer.label(call.out, [along(made, call.out.ndim, call.out.ndim - 1)])
