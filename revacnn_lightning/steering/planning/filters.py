"""Adding, removing and merging filters: a class of channels becomes `TensorEdit`s."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import messages, requests
from revacnn_lightning.steering.execution import optimizer_state as states
from revacnn_lightning.steering.execution.tensor_edits import find
from revacnn_lightning.steering.planning import index_mapping as placement
from revacnn_lightning.steering.planning.context import Context, check_filters, conv_named, planner
from revacnn_lightning.steering.planning.plan import (
    EditPlan,
    Fill,
    FilterMove,
    TensorEdit,
    ValueEdit,
    order_of,
    runs_of,
)
from revacnn_lightning.steering.planning.sizes import attribute_edits
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups

__all__ = ["move_of", "refusal"]

# Adding more filters than this at once is taken for a slip.
MOST_NEW_FILTERS = 4096
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)


def refusal(channels: ChannelGroups, layer: str) -> str:
    """Why no filter of this conv can be added or removed; "" if some can."""
    if layer in channels.untraced:
        return f"{layer} was not run by any forward of the model"
    if layer in channels.unlabelled:
        return (
            f"{layer} has a single filter, whose way through the network cannot be told from "
            "a constant's"
        )
    atoms = channels.filters[layer]
    reasons = [channels.pinned([c]) for c in channels.classes_of_atoms(atoms)]
    return f"filters of {layer} {reasons[0]}" if all(reasons) else ""


def _require_editable(context: Context, layer: str) -> None:
    reason = refusal(context.channels, layer)
    if reason:
        raise EditRefusedError(reason)


def _require_unpinned(context: Context, layer: str, classes: Sequence[int]) -> None:
    reason = context.channels.pinned(classes)
    if reason:
        raise EditRefusedError(f"these filters of {layer} {reason}")


# -------------------------------------------------------------------- removing and adding


@planner(requests.RemoveFilters)
def _remove(context: Context, request: requests.RemoveFilters) -> EditPlan:
    conv = conv_named(context.model, request.layer)
    check_filters(conv, request.layer, request.filters)
    if len(request.filters) == conv.out_channels == 1:
        raise EditRefusedError(
            f"the last filter of {request.layer} cannot be removed: one must stay"
        )
    return removal(context, request, request.layer, request.filters)


def removal(
    context: Context, request: requests.Edit, layer: str, filters: Sequence[int]
) -> EditPlan:
    """Remove these filters of a conv and all that is tied to them."""
    channels = context.channels
    _require_editable(context, layer)
    classes = channels.classes(layer, filters)
    _require_unpinned(context, layer, classes)
    members = channels.members(classes)
    for (name, dim), indices in members.items():
        size = channels.site(name, dim).size
        if len(indices) >= size:
            raise EditRefusedError(
                f"this would remove all {size} channels of {name}; a layer keeps at least one"
            )
    edits = []
    for (name, dim), indices in sorted(members.items()):
        edit = placement.remove(name, dim, channels.site(name, dim).size, indices)
        # Not a filling, as nothing is new: marks the columns whose zeros mean "no such filter".
        edit.fill = "zero" if channels.is_input(name, dim, indices) else "copy"
        edits.append(edit)
    listed = ", ".join(map(str, sorted(filters)))
    title = f"Remove {layer} · {'filter' if len(filters) == 1 else 'filters'} {listed}"
    plan = _resizing_plan(context, request, title, edits, classes, layer)
    plan.attributes = attribute_edits(context.model, channels, classes, -1)
    plan.sets = [messages.FilterChange(name, removed=indices)
                 for name, indices in channels.filters_in(classes).items()]  # fmt: skip
    mixed = channels.mixed(classes)
    if mixed:
        plan.notes.append(f"the other channels change as well: {mixed}")
    return plan


@planner(requests.MergeFilters)
def _merge(context: Context, request: requests.MergeFilters) -> EditPlan:
    """Columns of the others are added to those of the first, then the others are removed."""
    conv = conv_named(context.model, request.layer)
    check_filters(conv, request.layer, request.filters)
    if len(request.filters) < 2:
        raise EditRefusedError(f"merging filters of {request.layer} takes at least two of them")
    keep, *others = request.filters
    plan = removal(context, request, request.layer, others)
    channels = context.channels
    target = channels.classes(request.layer, [keep])
    _require_unpinned(context, request.layer, target)
    into = channels.members(target)
    for other in others:
        classes = channels.classes(request.layer, [other])
        if classes == target:
            raise EditRefusedError(
                f"filters {keep} and {other} of {request.layer} only exist together"
            )
        for (name, dim), indices in sorted(channels.members(classes).items()):
            if channels.is_input(name, dim, indices):
                kept = into.get((name, dim), np.zeros(0, int))
                if len(kept) != len(indices):
                    raise EditRefusedError(f"{name} reads filters {keep} and {other} differently")
                plan.values.append(ValueEdit(name, dim, kept.tolist(), "add", indices.tolist()))
    listed = ", ".join(map(str, others))
    plan.title = f"Merge {request.layer} · {listed} into {keep}"
    return plan


@planner(requests.AddFilters)
def _add(context: Context, request: requests.AddFilters) -> EditPlan:
    conv = conv_named(context.model, request.layer)
    if request.count < 1:
        raise EditRefusedError(
            f"the number of filters to add is {request.count}; it must be at least 1"
        )
    if request.count > MOST_NEW_FILTERS:
        raise EditRefusedError(f"{request.count} new filters are more than {MOST_NEW_FILTERS}, the most "
                      "that one request may add")  # fmt: skip
    if request.split_from is not None:
        check_filters(conv, request.layer, [request.split_from])
    _require_editable(context, request.layer)
    channels = context.channels
    classes = _class_to_copy(context, request)
    mixed = channels.mixed(classes)
    if mixed:
        raise EditRefusedError(f"a new filter of {request.layer} would change all others: {mixed}")
    members = channels.members(classes)
    pieces = min(len(indices) for indices in members.values())
    edits = []
    for (name, dim), indices in sorted(members.items()):
        size = channels.site(name, dim).size
        edit = placement.insert(name, dim, size, indices, pieces, request.count)
        edit.fill = _fill(context, name, dim, indices, split=request.split_from is not None)
        edits.append(edit)
    what = "filter" if request.count == 1 else f"{request.count} filters"
    how = "" if request.split_from is None else f" split from {request.split_from}"
    title = f"Add {what} to {request.layer}{how}"
    plan = _resizing_plan(context, request, title, edits, classes, request.layer)
    plan.attributes = attribute_edits(context.model, channels, classes, request.count)
    plan.sets = [messages.FilterChange(name, added=len(indices) * request.count)
                 for name, indices in channels.filters_in(classes).items()]  # fmt: skip
    return plan


def _class_to_copy(context: Context, request: requests.AddFilters) -> list[int]:
    """The class a new filter stands behind: the chosen one, else the smallest, else the last."""
    channels, layer = context.channels, request.layer
    if request.split_from is not None:
        classes = channels.classes(layer, [request.split_from])
        _require_unpinned(context, layer, classes)
        return classes
    own = [c for c in channels.classes_of_atoms(channels.filters[layer])
           if not channels.pinned([c])]  # fmt: skip
    last = channels.classes(layer, [len(channels.filters[layer]) - 1])[0]
    by_class = np.bincount(channels.class_of(channels.filters[layer]))
    counts = {c: int(by_class[c]) for c in own}
    smallest = min(counts.values())
    if counts.get(last) == smallest:
        return [last]
    return [max(c for c in own if counts[c] == smallest)]


def _fill(context: Context, name: str, dim: int, indices: np.ndarray, split: bool) -> Fill:
    """How new entries of a tensor begin: nothing may reach what was there before."""
    channels = context.channels
    is_input = channels.is_input(name, dim, indices)
    if split:
        return "share" if is_input else "copy"
    if is_input:
        return "zero"
    owner, tensor = find(context.model, name)
    attribute = name.rpartition(".")[2]
    if isinstance(owner, NORMS):
        return "one" if attribute in ("weight", "running_var") else "zero"
    if isinstance(owner, (_ConvNd, nn.Linear)) and tensor.ndim == 1 and attribute == "bias":
        return "fresh"
    return "fresh" if channels.is_output(name, dim, indices) and tensor.ndim > 1 else "copy"


# -------------------------------------------------------------------- what all resizing shares


def _resizing_plan(
    context: Context,
    request: requests.Edit,
    title: str,
    edits: list[TensorEdit],
    classes: Sequence[int],
    layer: str,
) -> EditPlan:
    named = {edit.tensor: find(context.model, edit.tensor)[1] for edit in edits}
    problem = states.check(context.optimizers, named)
    if problem:
        raise EditRefusedError(problem)
    before = sum(p.numel() for p in context.model.parameters())
    return EditPlan(
        request=request,
        title=title,
        tensors=edits,
        filters=_moves(context.channels, edits, classes),
        why=_why(context, classes, layer),
        parameters_before=before,
        parameters_after=before + _growth(context.model, edits),
        notes=states.notes_for(context.optimizers, named.values()) + _not_run(context.channels),
    )


def _not_run(channels: ChannelGroups) -> list[str]:
    """A layer that no forward ran may read the edited channels without anyone knowing."""
    names = channels.untraced
    if not names:
        return []
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    return [f"not run by any forward, and so not edited along: {shown}"]


def _growth(model: nn.Module, edits: Sequence[TensorEdit]) -> int:
    """By how many parameters the model grows (negative: shrinks)."""
    growth = 0
    for name in {edit.tensor for edit in edits}:
        tensor = find(model, name)[1]
        if isinstance(tensor, nn.Parameter):
            shape = list(tensor.shape)
            for edit in edits:
                if edit.tensor == name:
                    shape[edit.dim] = sum(b - a for a, b in edit.runs)
            growth += math.prod(shape) - tensor.numel()
    return growth


def _moves(
    channels: ChannelGroups, edits: Sequence[TensorEdit], classes: Sequence[int]
) -> list[FilterMove]:
    """How the filters of each conv in these classes move, from what happens to its weight."""
    by_key = {(edit.tensor, edit.dim): edit for edit in edits}
    moves = []
    for layer in channels.filters_in(classes):
        atoms = channels.filters[layer]
        place = channels.locate(int(atoms[0]))
        edit = by_key.get(place[:2]) if place else None
        if edit is not None:
            moves.append(move_of(layer, edit, len(atoms)))
    return moves


def move_of(layer: str, edit: TensorEdit, filters: int) -> FilterMove:
    """The filters' move; a grouped transposed conv's weight stands for each of its groups."""
    order, new = order_of(edit)
    groups = filters // edit.size
    whole = np.concatenate([order + g * edit.size for g in range(groups)])
    return FilterMove(layer, edit.tensor, edit.dim, filters, runs_of(whole),
                      np.flatnonzero(np.tile(new, groups)).tolist())  # fmt: skip


def _why(context: Context, classes: Sequence[int], layer: str) -> str:
    """Why more than one filter goes together; "" if it is one."""
    sets = context.channels.filters_in(classes)
    mine = len(sets.get(layer, []))
    conv = conv_named(context.model, layer)
    parts = []
    others = [name for name in sets if name != layer]
    if others:
        shown = ", ".join(others[:6]) + (f" and {len(others) - 6} more" if len(others) > 6 else "")
        parts.append(f"sums, depthwise convs or sizes tie {layer} to {shown}")
    if mine > len(classes):
        if 1 < conv.groups < conv.in_channels and mine % conv.groups == 0:
            parts.append(f"one per group: {mine // len(classes)}")
        else:
            parts.append(f"group convs or views behind {layer} tie {mine} of its filters together")
    return "; ".join(parts)
