"""Operations that rearrange elements: the same operation on the labels says where each went."""

from __future__ import annotations

import torch
from torch import Tensor

from revacnn_lightning.steering.tracing.labels import Component, along, compress, dims
from revacnn_lightning.steering.tracing.records import OpCall
from revacnn_lightning.steering.tracing.rules.operations import RESHAPES
from revacnn_lightning.steering.tracing.rules.table import rule, unknown
from revacnn_lightning.steering.tracing.trace import Trace

__all__ = ["view"]


def view(trace: Trace, call: OpCall) -> None:
    """Run the same view on the labels; pieces of an equal split stay equal."""
    x = call.args[0]
    outs = list(call.out) if isinstance(call.out, (list, tuple)) else [call.out]
    results: list[list[Component]] = [[] for _ in outs]
    for component in trace.labels(x):
        parts = _viewed(call, component, x, outs)
        if parts is None:
            trace.pin(component, f"are rearranged by aten.{call.base} in {trace.where()}")
            continue
        _tie_parts(trace, call, component, parts)
        for result, part in zip(results, parts, strict=True):
            result.append(part)
    for out, result in zip(outs, results, strict=True):
        trace.label(out, result)


def _viewed(
    call: OpCall, component: Component, x: Tensor, outs: list[Tensor]
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


def _tie_parts(trace: Trace, call: OpCall, component: Component, parts: list[Component]) -> None:
    said = dims(component)
    if len(said) != 1:
        return
    if call.base == "split" and len({p.shape for p in parts}) == 1:
        dim = call.get(2, "dim", 0) % component.ndim
        if dim in said:
            for part in parts[1:]:
                trace.union(parts[0], part)
    if call.base in RESHAPES and len(dims(parts[0])) == 2:
        # C -> (g, C / g): the same position of every group, so that it stays a rectangle
        outer = min(dims(parts[0]))
        trace.union(parts[0].narrow(outer, 0, 1), parts[0])


@rule("pixel_shuffle")
def _pixel_shuffle(trace: Trace, call: OpCall) -> None:
    """(…, C r², H, W) -> (…, C, H r, W r): the r² filters behind one output channel."""
    x, r = call.args[0], int(call.args[1])
    dim = x.ndim - 3
    atoms = trace.line(x, dim)
    if atoms is not None:
        phases = atoms.view(-1, r * r)
        trace.union(phases[:, :1], phases)
        trace.label(call.out, [along(phases[:, 0], call.out.ndim, dim)])


@rule("pixel_unshuffle")
def _pixel_unshuffle(trace: Trace, call: OpCall) -> None:
    x, r = call.args[0], int(call.args[1])
    dim = x.ndim - 3
    atoms = trace.line(x, dim)
    if atoms is not None:
        trace.label(call.out, [along(atoms.repeat_interleave(r * r), call.out.ndim, dim)])


@rule("im2col")
def _unfold(trace: Trace, call: OpCall) -> None:
    """(B, C, H, W) -> (B, C·k·k, L): the kernel's positions of one channel stand together."""
    x = call.args[0]
    atoms = trace.line(x, x.ndim - 3)
    if atoms is not None:
        made = atoms.repeat_interleave(call.out.shape[-2] // len(atoms))
        trace.label(call.out, [along(made, call.out.ndim, call.out.ndim - 2)])


@rule("index")
def _index(trace: Trace, call: OpCall) -> None:
    """x[:, [2, 0, 1]]: fixed indices. Fine along any dimension but a labelled one."""
    x, indices = call.args[:2]
    touched = {d for d, index in enumerate(indices) if index is not None}
    carried = []
    for component in trace.labels(x):
        if dims(component) & touched:
            trace.pin(component, f"are picked by fixed indices in {trace.where()}")
        else:
            carried.append(compress(call.func(component.expand(x.shape), indices)))
    trace.label(call.out, carried)


@rule("cat")
def _cat(trace: Trace, call: OpCall) -> None:
    """Along a labelled dimension the labels are concatenated; what has none is constant."""
    dim = call.get(1, "dim", 0) % call.out.ndim
    tensors = [t for t in call.args[0] if t.numel()]
    lines = [[c for c in trace.labels(t) if dim in dims(c)] for t in tensors]
    others = [[c for c in trace.labels(t) if dim not in dims(c)] for t in tensors]
    result = _unite_by_dims(trace, [c for group in others for c in group])
    if any(lines):
        pieces = []
        for tensor, group in zip(tensors, lines, strict=True):
            for extra in group[1:]:
                trace.pin(extra, f"are concatenated in {trace.where()}")
            size = tensor.shape[dim]
            if group:
                pieces.append(group[0])
            else:
                reason = f"are joined to channels that no layer makes, in {trace.where()}"
                pieces.append(along(trace.constant(size, reason), tensor.ndim, dim))
        result.append(_concatenated(pieces, dim))
    trace.label(call.out, result)


def _concatenated(pieces: list[Component], dim: int) -> Component:
    common = torch.broadcast_shapes(
        *[tuple(1 if d == dim else s for d, s in enumerate(p.shape)) for p in pieces]
    )
    wide = [p.expand([p.shape[dim] if d == dim else s for d, s in enumerate(common)])
            for p in pieces]  # fmt: skip
    return torch.cat(wide, dim)


def _unite_by_dims(trace: Trace, components: list[Component]) -> list[Component]:
    by_dims: dict[frozenset[int], Component] = {}
    for component in components:
        first = by_dims.setdefault(dims(component), component)
        if first is not component:
            trace.union(first, component)
    return list(by_dims.values())


@rule("stack")
def _stack(trace: Trace, call: OpCall) -> None:
    dim = call.get(1, "dim", 0) % call.out.ndim
    components = [c.unsqueeze(dim) for t in call.args[0] for c in trace.labels(t)]
    trace.label(call.out, _unite_by_dims(trace, components))


@rule("constant_pad_nd")
def _constant_pad(trace: Trace, call: OpCall) -> None:
    """Padding rows and columns is harmless; padding channels fixes their number."""
    x, pad = call.args[:2]
    touched = {x.ndim - 1 - i // 2 for i, amount in enumerate(pad) if amount}
    kept = []
    for component in trace.labels(x):
        if dims(component) & touched:
            trace.pin(component, f"are padded with constant channels in {trace.where()}")
        else:
            kept.append(component)
    trace.label(call.out, kept)


@rule("as_strided")
def _as_strided(trace: Trace, call: OpCall) -> None:
    """In place it only restrides (memory format); otherwise anything may overlap anything."""
    if not (call.inplace and call.out.shape == call.args[0].shape):
        unknown(trace, call)
