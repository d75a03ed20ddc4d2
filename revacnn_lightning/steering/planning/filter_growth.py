"""Plans adding filters: fresh ones, or copies that share the outgoing weights of their source."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import messages, requests
from revacnn_lightning.steering.planning.context import PlanningContext
from revacnn_lightning.steering.planning.equal_parts import choose_balanced_groups
from revacnn_lightning.steering.planning.index_mapping import (
    piece_duplication_edit,
    split_into_adjacent_pieces,
)
from revacnn_lightning.steering.planning.lookup import (
    check_filters,
    find_layer,
    find_owner_and_tensor,
)
from revacnn_lightning.steering.planning.plan import ONES_OF_NORM, EditPlan, Fill, TensorEdit
from revacnn_lightning.steering.planning.refusals import (
    check_channels_may_change,
    check_layer_resizable,
)
from revacnn_lightning.steering.planning.resize_plan import (
    can_zeroing_disconnect_channels,
    make_resize_plan,
    note_weight_norm_gains_to_resize,
    sort_by_gain_dependency,
    why_no_equal_parts,
)
from revacnn_lightning.steering.planning.size_attributes import size_attribute_edits
from revacnn_lightning.telemetry.unit_layers import UnitLayer

__all__ = ["growth_title", "plan_growth"]

# A request for more new filters than this is probably a typing error.
MAX_NEW_FILTERS = 4096
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)


def plan_growth(context: PlanningContext, request: requests.AddFilters) -> EditPlan:
    """Plan adding filters. The function stays the same, unless a norm mixes them with others."""
    layer = request.layer
    _check_request(context, request)
    groups = _groups_to_copy(context, request)
    adjacent = context.groups.channels_per_norm_group(groups)
    count = max(1, round(request.count / adjacent))  # of whole groups of a group norm
    context, groups = _balanced(context, request, groups, count)
    channel_groups = context.groups
    edits = _insertions(context, groups, count, split=request.split_from is not None)
    filters = count * adjacent
    plan = make_resize_plan(context, request, growth_title(request, filters), edits, groups, layer)
    plan.attributes = size_attribute_edits(context.model, channel_groups, groups, count)
    plan.filter_changes = [messages.FilterChange(name, added=len(indices) * count)
                 for name, indices in channel_groups.filters_in(groups).items()]  # fmt: skip
    plan.output_effect = messages.OUTPUT_UNCHANGED
    reason = channel_groups.why_normalized_together(groups)
    if reason:
        plan.is_mixing, plan.output_effect = True, "output changes"
        plan.require_confirmation(f"a new filter of {layer} changes all others: {reason}")
    return plan


def growth_title(request: requests.AddFilters, filters: int) -> str:
    """Return the title of a plan that adds so many filters."""
    what = "filter" if filters == 1 else f"{filters} filters"
    if request.split_from is not None:
        others = "" if filters == 1 else f" ({what} added)"
        return f"Split filter {request.split_from} of {request.layer}{others}"
    how = " in the direction of its growth gain" if request.directed else ""
    return f"Add {what} to {request.layer}{how}"


def _check_request(context: PlanningContext, request: requests.AddFilters) -> None:
    conv = find_layer(context.model, request.layer)
    if request.count < 1:
        raise EditRefusedError(
            f"the number of filters to add is {request.count}; it must be at least 1"
        )
    if request.count > MAX_NEW_FILTERS:
        raise EditRefusedError(
            f"{request.count} new filters are more than {MAX_NEW_FILTERS}, the maximum of one "
            "request; add fewer"
        )
    if request.split_from is not None:
        check_filters(conv, request.layer, [request.split_from])
    check_layer_resizable(context, request.layer)


def _groups_to_copy(context: PlanningContext, request: requests.AddFilters) -> list[int]:
    """Return the groups that new filters are inserted after.

    They are those of ``split_from``. Otherwise it is the last editable group among those with the
    fewest filters of the layer, so that as little as possible is added.
    """
    channel_groups, layer = context.groups, request.layer
    if request.split_from is not None:
        groups = channel_groups.groups_of_filters(layer, [request.split_from])
        check_channels_may_change(context, layer, groups)
        return groups
    filters = channel_groups.filters[layer]
    editable = [
        g for g in channel_groups.groups_of_channels(filters) if not channel_groups.why_fixed([g])
    ]
    sizes = np.bincount(channel_groups.group_of_each(filters))
    smallest = min(int(sizes[g]) for g in editable)
    last = channel_groups.groups_of_filters(layer, [len(filters) - 1])[0]
    if last in editable and sizes[last] == smallest:
        return [last]
    return [max(g for g in editable if sizes[g] == smallest)]


def _balanced(
    context: PlanningContext, request: requests.AddFilters, groups: list[int], count: int
) -> tuple[PlanningContext, list[int]]:
    """Return what to insert copies after so that equal parts stay equal, and its context.

    Raises:
        EditRefusedError: other channels would arrive where the parts are read.
    """
    filters = [] if request.split_from is None else [request.split_from]
    found = choose_balanced_groups(context.groups, groups, request.layer, filters, count)
    if found is None:
        raise EditRefusedError(
            f"no filter can be added to {request.layer}: {why_no_equal_parts(context, groups)}"
        )
    return replace(context, groups=found[0]), found[1]


def _insertions(
    context: PlanningContext, groups: list[int], count: int, *, split: bool
) -> list[TensorEdit]:
    pieces = _pieces(context, groups)
    edits = []
    for (name, dim), indices in sorted(context.groups.members(groups).items()):
        size = context.groups.dimension(name, dim).size
        if split and _is_tied(context, name, dim, indices):
            raise EditRefusedError(
                f"{name} both produces these channels and reads them elsewhere, so a copy cannot "
                "keep its values in one place and share them in the other; add a filter instead"
            )
        edit = piece_duplication_edit(name, dim, size, pieces[name, dim], count)
        edit.fill = _fill(context, name, dim, indices, split=split)
        edits.append(note_weight_norm_gains_to_resize(context, edit))
    return sort_by_gain_dependency(edits)


def _pieces(context: PlanningContext, groups: list[int]) -> dict[tuple[str, int], list[np.ndarray]]:
    """Return the adjacent indices of each tensor dimension that are copied together."""
    found: dict[tuple[str, int], list[np.ndarray]] = {}
    for group in groups:
        members = context.groups.members([group])
        count = min(
            map(len, members.values()), default=1
        ) // context.groups.channels_per_norm_group([group])
        for at, indices in members.items():
            found.setdefault(at, []).extend(split_into_adjacent_pieces(indices, count))
    return found


def _is_tied(context: PlanningContext, name: str, dim: int, indices: np.ndarray) -> bool:
    """Return whether rows of a tensor produce channels that the same rows read again."""
    groups, rows = context.groups, context.groups.dimension(name, dim).start + indices
    reads_itself = bool((groups.arrival[rows] == rows).any())
    return (
        reads_itself
        and groups.produces_channels(name, dim, indices)
        and groups.reads_channels(name, dim, indices)
    )


def _fill(
    context: PlanningContext, name: str, dim: int, indices: np.ndarray, *, split: bool
) -> Fill:
    """Return how new entries of a tensor start, so that the present outputs stay as they are."""
    channel_groups = context.groups
    reads = can_zeroing_disconnect_channels(context, name, dim, indices)
    if context.is_mask(name):
        return "copy" if split else "one"
    if split:
        return "share" if reads else "copy"
    if reads:
        return "zero"
    owner, tensor = find_owner_and_tensor(context.model, name)
    attribute = name.rpartition(".")[2]
    if context.is_singular_vector(name):  # the norm stays the same
        return "zero"
    if isinstance(owner, NORMS) and name not in context.computed:
        return "one" if attribute in ONES_OF_NORM else "zero"
    if isinstance(owner, UnitLayer) and tensor.ndim == 1 and attribute == "bias":
        return "fresh"
    produces = channel_groups.produces_channels(name, dim, indices)
    return "fresh" if produces and tensor.ndim > 1 else "copy"
