"""Rules of operations that rearrange elements: the same operation on labels gives the result's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from revacnn_lightning.steering.tracing.hardcoded_sizes import find_hardcoded_size
from revacnn_lightning.steering.tracing.labels import (
    Label,
    compress_label,
    label_along,
    labeled_dims,
)
from revacnn_lightning.steering.tracing.records import OpCall
from revacnn_lightning.steering.tracing.rules.linear_maps import (
    couple_unflattened_pixels,
    is_unflattening,
)
from revacnn_lightning.steering.tracing.rules.op_families import RESHAPES
from revacnn_lightning.steering.tracing.rules.table import fix_inputs, register_rule
from revacnn_lightning.steering.tracing.trace import Trace

__all__ = ["view_rule"]


def view_rule(trace: Trace, call: OpCall) -> None:
    """Run the same view on the labels. Pieces of an equal split must keep equal sizes."""
    x = call.args[0]
    outs = list(call.out) if isinstance(call.out, (list, tuple)) else [call.out]
    results: list[list[Label]] = [[] for _ in outs]
    for label in trace.labels(x):
        parts = _viewed(call, label, x, outs)
        if parts is None:
            trace.fix(label, f"are rearranged by aten.{call.base} in {trace.where()}")
            continue
        if call.base in RESHAPES and is_unflattening(x, parts[0], outs[0]):
            parts = [couple_unflattened_pixels(trace, parts[0])]
        else:
            _couple_parts(trace, call, label, parts)
        if call.base in RESHAPES:
            _count_unflattened(trace, parts[0])
            _fix_written_size(trace, x, parts[0], outs[0])
        for result, part in zip(results, parts, strict=True):
            result.append(part)
    for out, result in zip(outs, results, strict=True):
        trace.set_labels(out, result)


def _viewed(call: OpCall, label: Label, x: Tensor, outs: list[Tensor]) -> list[Label] | None:
    full = label.expand(x.shape)
    try:
        viewed = call.func(full, *call.args[1:], **call.kwargs)
    except RuntimeError:  # the label's strides do not allow this view
        if call.base not in RESHAPES:
            return None
        viewed = full.reshape(outs[0].shape)
    parts = list(viewed) if isinstance(viewed, (list, tuple)) else [viewed]
    return [compress_label(part) for part in parts]


def _couple_parts(trace: Trace, call: OpCall, label: Label, parts: list[Label]) -> None:
    dims = labeled_dims(label)
    if len(dims) != 1:
        return
    if call.base == "split" and len(parts) > 1:
        dim = call.argument(2, "dim", 0) % label.ndim
        if dim in dims:
            trace.record_equal_parts(parts, is_split=True)
    viewed = labeled_dims(parts[0])
    if call.base in RESHAPES and len(viewed) in (2, 3):
        # C -> (g, C / g) or (3, heads, C / (3 heads)): the result stays a rectangle.
        trace.record_equal_parts(list(parts[0].reshape(-1, parts[0].shape[max(viewed)])))
        trace.has_heads |= len(viewed) == 3


def _count_unflattened(trace: Trace, label: Label) -> None:
    """Record that an entry of the sizes of an ``nn.Unflatten`` is the number of these channels."""
    module, dims = trace.running_module, sorted(labeled_dims(label))
    if not isinstance(module, nn.Unflatten) or not isinstance(module.dim, int) or not dims:
        return
    for group in dims[:-1]:
        label = label.narrow(group, 0, 1)
    sizes = module.unflattened_size
    first = module.dim % (label.ndim - len(sizes) + 1)
    entry = dims[-1] - first
    if 0 <= entry < len(sizes) and sizes[entry] == label.numel():
        trace.record_count_attribute("unflattened_size", label.reshape(-1), entry)


def _fix_written_size(trace: Trace, x: Tensor, label: Label, out: Tensor) -> None:
    """Refuse edits of channels whose number is written in the code, which would not change along.

    It is the size of the last dimension they are labeled over; those before it are groups.
    """
    dim = max(labeled_dims(label), default=-1)
    found = None if dim < 0 else find_hardcoded_size(dim, out.ndim, out.shape[dim])
    if found is not None:
        trace.fix(
            label,
            f"pass {found.call} ({found.place}), where the size {out.shape[dim]} is written as a "
            f"number, which would not change along{_better(x, label, out)}",
        )


def _better(x: Tensor, label: Label, out: Tensor) -> str:
    """Return what to write in place of a written size, as the end of a reason."""
    if len(labeled_dims(label)) > 2:  # heads, or pixels that a linear layer computes
        return ""
    is_flat = out.ndim == 2 and out.shape[0] == x.shape[0]
    written = "flatten(1)" if is_flat else "-1 for it, and sizes read from shapes for the others"
    return f"; write {written} instead"


@register_rule("pixel_shuffle")
def _pixel_shuffle(trace: Trace, call: OpCall) -> None:
    """(…, C r², H, W) -> (…, C, H r, W r) couples the r² filters of one output channel."""
    x, r = call.args[0], int(call.args[1])
    dim = x.ndim - 3
    channels = trace.channels_along(x, dim)
    if channels is not None:
        phases = channels.view(-1, r * r)
        trace.couple(phases[:, :1], phases)
        trace.set_labels(call.out, [label_along(phases[:, 0], call.out.ndim, dim)])


@register_rule("pixel_unshuffle")
def _pixel_unshuffle(trace: Trace, call: OpCall) -> None:
    x, r = call.args[0], int(call.args[1])
    dim = x.ndim - 3
    channels = trace.channels_along(x, dim)
    if channels is not None:
        trace.set_labels(
            call.out, [label_along(channels.repeat_interleave(r * r), call.out.ndim, dim)]
        )


@register_rule("im2col")
def _unfold(trace: Trace, call: OpCall) -> None:
    """(B, C, H, W) -> (B, C·k·k, L): the kernel's positions of one channel are adjacent."""
    x = call.args[0]
    channels = trace.channels_along(x, x.ndim - 3)
    if channels is not None:
        unfolded = channels.repeat_interleave(call.out.shape[-2] // len(channels))
        trace.set_labels(call.out, [label_along(unfolded, call.out.ndim, call.out.ndim - 2)])


@register_rule("index")
def _index(trace: Trace, call: OpCall) -> None:
    """x[:, [2, 0, 1]]: fixed indices are possible along any dimension but a labeled one."""
    x, indices = call.args[:2]
    changed = {d for d, index in enumerate(indices) if index is not None}
    carried = []
    for label in trace.labels(x):
        if labeled_dims(label) & changed:
            trace.fix(label, f"are picked by fixed indices in {trace.where()}")
        else:
            carried.append(compress_label(call.func(label.expand(x.shape), indices)))
    trace.set_labels(call.out, carried)


@register_rule("cat")
def _cat(trace: Trace, call: OpCall) -> None:
    """Concatenate the labels along ``dim`` and couple the others; unlabeled parts are constants."""
    dim = call.argument(1, "dim", 0) % call.out.ndim
    tensors = [t for t in call.args[0] if t.numel()]
    along = [[c for c in trace.labels(t) if dim in labeled_dims(c)] for t in tensors]
    others = [c for t in tensors for c in trace.labels(t) if dim not in labeled_dims(c)]
    result = _coupled_by_dims(trace, others)
    if any(along):
        pieces = [
            _piece(trace, tensor, labels, dim)
            for tensor, labels in zip(tensors, along, strict=True)
        ]
        result.append(_concatenated(pieces, dim))
    trace.set_labels(call.out, result)


def _piece(trace: Trace, tensor: Tensor, labels: list[Label], dim: int) -> Label:
    """Return the label of one part of a concatenation along ``dim``."""
    for extra in labels[1:]:
        trace.fix(extra, f"are concatenated in {trace.where()}")
    if labels:
        return labels[0]
    reason = f"are concatenated with channels that no layer produces, in {trace.where()}"
    channels = trace.constant_channels(tensor.shape[dim], reason)
    return label_along(channels, tensor.ndim, dim)


def _concatenated(pieces: list[Label], dim: int) -> Label:
    """Return the concatenation of labels, broadcast in all other dimensions."""
    if all(p.numel() == p.shape[dim] for p in pieces):  # channels along ``dim`` only
        return torch.cat(pieces, dim)
    common = torch.broadcast_shapes(
        *[tuple(1 if d == dim else s for d, s in enumerate(p.shape)) for p in pieces]
    )
    expanded = [
        p.expand([p.shape[dim] if d == dim else s for d, s in enumerate(common)]) for p in pieces
    ]
    return torch.cat(expanded, dim)


def _coupled_by_dims(trace: Trace, labels: list[Label]) -> list[Label]:
    """Couple labels over the same dimensions and return one of each kind."""
    by_dims: dict[frozenset[int], Label] = {}
    for label in labels:
        first = by_dims.setdefault(labeled_dims(label), label)
        if first is not label:
            trace.couple(first, label)
    return list(by_dims.values())


@register_rule("stack")
def _stack(trace: Trace, call: OpCall) -> None:
    dim = call.argument(1, "dim", 0) % call.out.ndim
    labels = [c.unsqueeze(dim) for t in call.args[0] for c in trace.labels(t)]
    trace.set_labels(call.out, _coupled_by_dims(trace, labels))


@register_rule("constant_pad_nd")
def _constant_pad(trace: Trace, call: OpCall) -> None:
    """Padding keeps labels; padded channels are constants, as those of a concatenation."""
    x, pad = call.args[:2]
    amounts = {x.ndim - 1 - i: tuple(pad[2 * i : 2 * i + 2]) for i in range(len(pad) // 2)}
    changed = {dim for dim, amount in amounts.items() if any(amount)}
    kept = []
    for label in trace.labels(x):
        dims = labeled_dims(label)
        if not dims & changed:
            kept.append(label)
        elif dims & changed == {max(dims)} and min(amounts[max(dims)]) >= 0:
            kept.append(_padded(trace, label, max(dims), amounts[max(dims)]))
        else:
            trace.fix(label, f"are padded with constant channels in {trace.where()}")
    trace.set_labels(call.out, kept)


def _padded(trace: Trace, label: Label, dim: int, amounts: tuple[int, ...]) -> Label:
    """Return the label of channels with this many constant ones before and after them.

    If other dimensions are labeled as well, those of the groups, each group has its own.
    """
    reason = f"meet constant channels, with which others are padded in {trace.where()}"
    groups = label.numel() // label.shape[dim]
    before, after = (
        [trace.constant_channels(n * groups, reason).reshape(_with_size(label, dim, n))]
        if n
        else []
        for n in amounts
    )
    return torch.cat([*before, label, *after], dim)


def _with_size(label: Label, dim: int, size: int) -> list[int]:
    return [size if d == dim else each for d, each in enumerate(label.shape)]


@register_rule("glu")
def _gated(trace: Trace, call: OpCall) -> None:
    """GLU (Dauphin et al. 2017): the second half of the channels gates the first."""
    x = call.args[0]
    dim = call.argument(1, "dim", -1) % x.ndim
    kept = []
    for label in trace.labels(x):
        dims = labeled_dims(label)
        if dims == {dim}:
            gated, gates = label.chunk(2, dim)
            trace.couple(gated, gates)
            kept.append(gated)
        elif dim in dims:
            trace.fix(label, f"are interleaved before {trace.where()}")
        else:
            kept.append(label)
    trace.set_labels(call.out, kept)


@register_rule("roi_align", "roi_pool")
def _regions(trace: Trace, call: OpCall) -> None:
    """(B, C, H, W), (K, 5) -> (K, C, h, w): crops each channel on its own."""
    channels = trace.channels_along(call.args[0], 1)
    for label in (*trace.labels(call.args[0]), *trace.labels(call.args[1])):
        if labeled_dims(label) != {1} or channels is None:
            trace.fix(label, f"select regions in {trace.where()}")
    if channels is not None:
        trace.set_labels(call.outs[0], [label_along(channels, call.outs[0].ndim, 1)])


@register_rule("as_strided")
def _as_strided(trace: Trace, call: OpCall) -> None:
    """In place it only changes the memory format; otherwise any elements may overlap."""
    if not (call.is_inplace and call.out.shape == call.args[0].shape):
        fix_inputs(trace, call)
