"""The plan of tensor edits that resize channel groups, for added and for removed filters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering.planning.context import PlanningContext
from revacnn_lightning.steering.planning.equal_parts import dividing_module_names
from revacnn_lightning.steering.planning.lookup import find_layer, find_owner_and_tensor
from revacnn_lightning.steering.planning.optimizer_support import (
    inexact_resize_notes,
    why_state_not_resizable,
)
from revacnn_lightning.steering.planning.plan import (
    EditPlan,
    FilterMove,
    TensorEdit,
    old_indices_and_new_mask,
    split_into_runs,
)
from revacnn_lightning.steering.planning.unused_layers import untraced_consumers
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.telemetry.unit_layers import group_count, input_count

__all__ = [
    "can_zeroing_disconnect_channels",
    "filter_move",
    "make_resize_plan",
    "note_weight_norm_gains_to_resize",
    "parameter_count_change",
    "sort_by_gain_dependency",
    "why_coupled",
    "why_no_equal_parts",
]

# A note names at most this many layers.
MAX_NAMES = 6


def make_resize_plan(
    context: PlanningContext,
    request: requests.Edit,
    title: str,
    edits: list[TensorEdit],
    groups: Sequence[int],
    layer: str,
) -> EditPlan:
    """Return a plan of these tensor edits, which resize channel groups for filters of ``layer``.

    Raises:
        EditRefusedError: an optimizer's state cannot be resized, or a layer that may read the
            filters runs in other batches only.
    """
    tensors = {edit.tensor: find_owner_and_tensor(context.model, edit.tensor)[1] for edit in edits}
    problem = why_state_not_resizable(context.optimizers, tensors)
    if problem:
        raise EditRefusedError(problem)
    before = context.count_parameters()
    notes = inexact_resize_notes(context.optimizers, tensors.values())
    unused, is_certain = untraced_consumers(context, edits)
    plan = EditPlan(
        request=request,
        title=title,
        tensors=edits,
        filters=_filter_moves(context.groups, edits, groups),
        coupling=why_coupled(context, groups, layer),
        parameters_before=before,
        parameters_after=before + parameter_count_change(context.model, edits),
        is_choice=not context.groups.keeps_positions,
        notes=notes + _untraced_note(unused),
    )
    if not is_certain:
        plan.require_confirmation(
            f"{unused[0]} may read these filters. No forward has run it so far, so it stays as it "
            "is, and training fails if a later batch runs it"
        )
    return plan


def can_zeroing_disconnect_channels(
    context: PlanningContext, name: str, dim: int, indices: np.ndarray
) -> bool:
    """Return whether zeros at these indices of a tensor stop its layer from reading channels.

    It is true of columns that multiply an arriving channel. Under a weight norm with an entry for
    each column, it is true of these entries of the gain: a direction of zeros has no norm.
    """
    groups = context.groups
    direction = context.direction_of(name)
    if direction:
        return bool(context.entry_gain_of(direction, dim)) and groups.reads_channels(
            direction, dim, indices
        )
    return groups.reads_channels(name, dim, indices) and not context.entry_gain_of(name, dim)


def note_weight_norm_gains_to_resize(context: PlanningContext, edit: TensorEdit) -> TensorEdit:
    """Set and return the edit's gains, which an edit of a weight norm's direction has to adapt."""
    gains = context.gains_of(edit.tensor, edit.dim)
    edit.gain, edit.entry_gain = gains.get("gain", ""), gains.get("entry_gain", "")
    return edit


def sort_by_gain_dependency(edits: list[TensorEdit]) -> list[TensorEdit]:
    """Sort edits so that each rescaled gain has the entries of its direction by then."""
    return sorted(edits, key=lambda edit: (bool(edit.gain), edit.tensor, edit.dim))


def filter_move(layer: str, edit: TensorEdit, filter_count: int) -> FilterMove:
    """Return how a conv's filters move when its weight is edited.

    The weight of a grouped transposed conv has one index for a filter of each group.
    """
    order, new = old_indices_and_new_mask(edit)
    conv_groups = filter_count // edit.size
    whole = np.concatenate([order + g * edit.size for g in range(conv_groups)])
    return FilterMove(layer, edit.tensor, edit.dim, filter_count, split_into_runs(whole),
                      np.flatnonzero(np.tile(new, conv_groups)).tolist())  # fmt: skip


def _filter_moves(
    channel_groups: ChannelGroups, edits: Sequence[TensorEdit], edited: Sequence[int]
) -> list[FilterMove]:
    """Return the filter moves of every conv with filters in the edited groups."""
    by_dimension = {(edit.tensor, edit.dim): edit for edit in edits}
    moves = []
    for layer in channel_groups.filters_in(edited):
        channels = channel_groups.filters[layer]
        place = channel_groups.locate(int(channels[0]))
        edit = by_dimension.get(place[:2]) if place else None
        if edit is not None:
            moves.append(filter_move(layer, edit, len(channels)))
    return moves


def parameter_count_change(model: nn.Module, edits: Sequence[TensorEdit]) -> int:
    """Return by how many values the parameters grow (negative: shrink)."""
    growth = 0
    for name in {edit.tensor for edit in edits}:
        tensor = find_owner_and_tensor(model, name)[1]
        if isinstance(tensor, nn.Parameter):
            shape = list(tensor.shape)
            for edit in edits:
                if edit.tensor == name:
                    shape[edit.dim] = sum(b - a for a, b in edit.runs)
            growth += math.prod(shape) - tensor.numel()
    return growth


def _untraced_note(layers: Sequence[str]) -> list[str]:
    """Return a note on layers that no forward ran: they may read the edited channels."""
    if not layers:
        return []
    return [f"not run by any forward, and therefore not edited: {_listed(layers)}"]


def why_coupled(context: PlanningContext, groups: Sequence[int], layer: str) -> str:
    """Return why more than one filter is edited; "" if it is one."""
    filters = context.groups.filters_in(groups)
    own = len(filters.get(layer, []))
    conv = find_layer(context.model, layer)
    reasons = []
    others = [name for name in filters if name != layer]
    if others:
        reasons.append(
            f"sums, products, depthwise convs, shared weights or sizes couple {layer} to "
            f"{_listed(others)}"
        )
    if own > len(groups):
        adjacent = context.groups.channels_per_norm_group(groups)
        if adjacent > 1:
            reasons.append(
                f"a group norm keeps its groups of {adjacent} channels: filters are added and "
                f"removed {adjacent} at a time"
            )
        elif 1 < group_count(conv) < input_count(conv) and own == len(groups) * group_count(conv):
            reasons.append(f"one per group: {group_count(conv)}")
        else:
            reasons.append(f"operations after {layer} couple {own} of its filters")
    if not context.groups.keeps_positions:
        places = dividing_module_names(context.groups, groups)
        reasons.append(f"channels are divided into parts of equal size in {_listed(places)}")
    return "; ".join(reasons)


def why_no_equal_parts(context: PlanningContext, groups: Sequence[int]) -> str:
    """Return why no edit of these groups keeps equal parts; "" if nothing divides them."""
    places = dividing_module_names(context.groups, groups)
    if not places:
        return ""
    return (
        f"channels are divided into parts of equal size in {_listed(places)}, and no edit of few "
        "filters was found after which each channel is in the same part"
    )


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {rest} more" if rest > 0 else "")
