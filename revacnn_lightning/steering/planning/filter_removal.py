"""Plans removing and merging filters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import messages, requests
from revacnn_lightning.steering.planning.context import PlanningContext
from revacnn_lightning.steering.planning.equal_parts import choose_balanced_groups
from revacnn_lightning.steering.planning.index_mapping import removal_edit
from revacnn_lightning.steering.planning.lookup import check_filters, find_layer
from revacnn_lightning.steering.planning.plan import EditPlan, ValueEdit
from revacnn_lightning.steering.planning.refusals import (
    check_channels_may_change,
    check_layer_resizable,
)
from revacnn_lightning.steering.planning.resize_plan import (
    can_zeroing_disconnect_channels,
    make_resize_plan,
    note_weight_norm_gains_to_resize,
    sort_by_gain_dependency,
    why_coupled,
    why_no_equal_parts,
)
from revacnn_lightning.steering.planning.size_attributes import size_attribute_edits
from revacnn_lightning.telemetry.unit_layers import filter_count

__all__ = ["plan_merging", "plan_removal"]


def plan_removal(context: PlanningContext, request: requests.RemoveFilters) -> EditPlan:
    """Plan removing filters and everything coupled to them."""
    conv = find_layer(context.model, request.layer)
    check_filters(conv, request.layer, request.filters)
    if len(request.filters) == filter_count(conv) == 1:
        raise EditRefusedError(
            f"the last filter of {request.layer} cannot be removed; a layer keeps at least one"
        )
    plan = _removal(context, request, request.layer, request.filters, balanced=True)
    those = "this filter contributes" if len(request.filters) == 1 else "these filters contribute"
    plan.output_effect = f"output changes: it loses what {those}"
    return plan


def plan_merging(context: PlanningContext, request: requests.MergeFilters) -> EditPlan:
    """Plan adding the outgoing columns of filters to those of the first, then removing them."""
    conv = find_layer(context.model, request.layer)
    check_filters(conv, request.layer, request.filters)
    if len(request.filters) < 2:
        raise EditRefusedError(f"merging filters of {request.layer} needs at least two filters")
    _check_scales(request)
    keep, *others = request.filters
    plan = _removal(context, request, request.layer, others)
    scales = request.scales or [1.0] * len(request.filters)
    for other, scale in zip(others, scales[1:], strict=True):
        plan.values += _column_sums(context, request.layer, keep, other, scale)
    what = "filter" if len(others) == 1 else "filters"
    relation = "multiples of the first" if request.scales else "equal"
    plan.output_effect = f"output changes unless the merged filters are {relation}"
    plan.title = f"Merge {request.layer} · {what} {', '.join(map(str, others))} into {keep}"
    return plan


def _check_scales(request: requests.MergeFilters) -> None:
    scales, count = request.scales, len(request.filters)
    if not scales:
        return
    if len(scales) != count or scales[0] != 1 or not all(0 < one < math.inf for one in scales):
        raise EditRefusedError(
            f"scales must be {count} positive numbers, one per filter, and the first of them 1"
        )


def _removal(
    context: PlanningContext,
    request: requests.Edit,
    layer: str,
    filters: Sequence[int],
    *,
    balanced: bool = False,
) -> EditPlan:
    """Plan a removal.

    Args:
        balanced: whether equal parts may lose filters at other positions than these.
    """
    channel_groups = context.groups
    check_layer_resizable(context, layer)
    groups = channel_groups.groups_of_filters(layer, filters)
    check_channels_may_change(context, layer, groups)
    found = choose_balanced_groups(channel_groups, groups, layer, filters, -1) if balanced else None
    if found is not None:
        channel_groups, groups = found
        context = replace(context, groups=channel_groups)
    edits = []
    for (name, dim), indices in sorted(channel_groups.members(groups).items()):
        size = channel_groups.dimension(name, dim).size
        if len(indices) >= size:
            raise EditRefusedError(
                f"this would remove all {size} channels of {name}; a layer keeps at least one. "
                f"{_possible_removal(context, layer, filters)}"
            )
        edit = removal_edit(name, dim, size, indices)
        # Nothing is new here to be filled: "zero" marks the columns that verification sets to zero.
        edit.fill = (
            "zero" if can_zeroing_disconnect_channels(context, name, dim, indices) else "copy"
        )
        edits.append(note_weight_norm_gains_to_resize(context, edit))
    if balanced and found is None:  # after the loop, whose reasons say what can be removed instead
        raise EditRefusedError(
            f"these filters of {layer} cannot be removed: {why_no_equal_parts(context, groups)}"
        )
    listed = ", ".join(map(str, sorted(filters)))
    title = f"Remove {layer} · {'filter' if len(filters) == 1 else 'filters'} {listed}"
    plan = make_resize_plan(context, request, title, sort_by_gain_dependency(edits), groups, layer)
    plan.attributes = size_attribute_edits(context.model, channel_groups, groups, -1)
    plan.filter_changes = [messages.FilterChange(name, filters=indices)
                 for name, indices in channel_groups.filters_in(groups).items()]  # fmt: skip
    reason = channel_groups.why_normalized_together(groups)
    if reason:
        plan.notes.append(f"the other channels change as well: {reason}")
    return plan


def _possible_removal(context: PlanningContext, layer: str, filters: Sequence[int]) -> str:
    """Say how many of these filters can be removed, if not all of them can."""
    channel_groups = context.groups
    groups = channel_groups.groups_of_filters(layer, filters)
    kept = channel_groups.filters_in(groups[:1]).get(layer, [])
    rest = len(set(filters) - set(kept))
    if rest:
        return f"Keep filter {kept[0]} of {layer}: at most {rest} of these can be removed"
    reasons = [why_coupled(context, groups, layer), why_no_equal_parts(context, groups)]
    return f"All filters of {layer} are coupled: {'; '.join(filter(None, reasons))}"


def _column_sums(
    context: PlanningContext, layer: str, keep: int, other: int, scale: float
) -> list[ValueEdit]:
    """Return the edits that add every column that reads filter ``other`` to that of ``keep``.

    The columns are multiplied by ``scale``.
    """
    channel_groups = context.groups
    target = channel_groups.groups_of_filters(layer, [keep])
    check_channels_may_change(context, layer, target)
    source = channel_groups.groups_of_filters(layer, [other])
    if source == target:
        raise EditRefusedError(
            f"filters {keep} and {other} of {layer} are coupled and can only be removed together"
        )
    targets = channel_groups.members(target)
    edits = []
    for (name, dim), indices in sorted(channel_groups.members(source).items()):
        if channel_groups.reads_channels(name, dim, indices):
            kept = targets.get((name, dim), np.zeros(0, int))
            if len(kept) != len(indices):
                raise EditRefusedError(
                    f"filters {keep} and {other} of {layer} cannot be merged: {name} reads them "
                    "differently"
                )
            if context.entry_gain_of(name, dim):
                raise EditRefusedError(
                    f"filters {keep} and {other} of {layer} cannot be merged: {name} has a weight "
                    "norm for each channel that it reads"
                )
            gain = context.gains_of(name, dim).get("gain", "")
            weights = [] if scale == 1 else [scale] * len(indices)
            edits.append(
                ValueEdit(name, dim, kept.tolist(), "add", indices.tolist(), weights, gain=gain)
            )
    return edits
