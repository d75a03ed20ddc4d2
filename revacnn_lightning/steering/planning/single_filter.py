"""Plans adding filters to a layer that has a single one: see `tracing.widened_layer`."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
from torch import nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import messages, requests
from revacnn_lightning.steering.planning.context import PlanningContext
from revacnn_lightning.steering.planning.filter_growth import growth_title, plan_growth
from revacnn_lightning.steering.planning.lookup import (
    check_filters,
    find_layer,
    find_owner_and_tensor,
)
from revacnn_lightning.steering.planning.optimizer_support import why_state_not_resizable
from revacnn_lightning.steering.planning.plan import (
    EditPlan,
    FilterMove,
    TensorEdit,
    old_indices_and_new_mask,
    split_into_runs,
)
from revacnn_lightning.steering.planning.refusals import why_layer_not_resizable
from revacnn_lightning.steering.planning.resize_plan import parameter_count_change
from revacnn_lightning.steering.planning.unused_layers import untraced_consumers
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.steering.tracing.forward_probe import ForwardFailedError, ForwardProbe
from revacnn_lightning.steering.tracing.widened_layer import (
    EXTRA_FILTERS,
    traced_with_extra_filters,
)
from revacnn_lightning.telemetry.unit_layers import UnitLayer, filter_count

__all__ = ["is_untraceable_single_filter", "plan_single_growth"]


def is_untraceable_single_filter(
    model: nn.Module, channel_groups: ChannelGroups, layer: str
) -> bool:
    """Return whether a layer was run, but its path cannot be traced because it has one filter."""
    if layer not in channel_groups.unlabeled:
        return False
    module = model.get_submodule(layer)
    return isinstance(module, UnitLayer) and filter_count(module) == 1


def plan_single_growth(
    context: PlanningContext, request: requests.AddFilters, probe: ForwardProbe
) -> EditPlan:
    """Plan adding filters to a layer of a single one. The function stays the same.

    Raises:
        EditRefusedError: the filter cannot be followed through the network, or not be added to.
    """
    layer = request.layer
    if request.split_from is not None:
        check_filters(find_layer(context.model, layer), layer, [request.split_from])
    try:
        with traced_with_extra_filters(context.model, layer, probe) as groups:
            plan = _plan_widened(replace(context, groups=groups), request)
    except ForwardFailedError as error:
        reason = why_layer_not_resizable(context.groups, layer)
        raise EditRefusedError(f"{reason}; with more filters, {error}") from error
    _check(context, plan)
    plan.parameters_before = context.count_parameters()
    plan.parameters_after = plan.parameters_before + parameter_count_change(
        context.model, plan.tensors
    )
    return plan


def _plan_widened(context: PlanningContext, request: requests.AddFilters) -> EditPlan:
    """Return the plan without the extra filters, which the model of ``context`` has."""
    groups, layer = context.groups, request.layer
    if layer not in groups.filters:
        raise EditRefusedError(
            why_layer_not_resizable(groups, layer) or f"{layer} cannot be traced"
        )
    extra = groups.groups_of_filters(layer, range(EXTRA_FILTERS))
    own = groups.groups_of_filters(layer, [EXTRA_FILTERS])
    if set(own) & set(extra):
        raise EditRefusedError(f"operations after {layer} couple any filters that it has")
    source = None if request.split_from is None else EXTRA_FILTERS
    plan = plan_growth(context, msgspec.structs.replace(request, split_from=source))
    if plan.is_mixing or plan.attributes:
        raise EditRefusedError(
            plan.confirmation or f"{plan.attributes[0].module} counts the filters of {layer}"
        )
    return msgspec.structs.replace(
        plan,
        request=request,
        title=growth_title(request, request.count),
        tensors=[_without(edit, groups, extra) for edit in plan.tensors],
        filters=[_without_filters(move, groups, extra) for move in plan.filters],
        filter_changes=[
            messages.FilterChange(each.layer, added=request.count) for each in plan.filter_changes
        ],
    )


def _without(edit: TensorEdit, channel_groups: ChannelGroups, extra: list[int]) -> TensorEdit:
    """Return an edit of a tensor without the entries of the extra filters."""
    removed = channel_groups.members(extra).get((edit.tensor, edit.dim), np.zeros(0, int))
    runs, new = _remapped(edit, removed)
    return msgspec.structs.replace(edit, size=edit.size - len(removed), runs=runs, new=new)


def _without_filters(
    move: FilterMove, channel_groups: ChannelGroups, extra: list[int]
) -> FilterMove:
    removed = np.array(channel_groups.filters_in(extra).get(move.layer, []), int)
    runs, new = _remapped(move, removed)
    return msgspec.structs.replace(move, size=move.size - len(removed), runs=runs, new=new)


def _remapped(
    edit: TensorEdit | FilterMove, removed: np.ndarray
) -> tuple[list[tuple[int, int]], list[int]]:
    """Return runs and new positions of an edit of the tensor without the ``removed`` entries."""
    order, new = old_indices_and_new_mask(edit)
    is_kept = ~np.isin(order, removed)
    index = np.cumsum(~np.isin(np.arange(edit.size), removed)) - 1
    return split_into_runs(index[order[is_kept]]), np.flatnonzero(new[is_kept]).tolist()


def _check(context: PlanningContext, plan: EditPlan) -> None:
    """Check what a plan for the widened network could not know.

    Raises:
        EditRefusedError: an optimizer's state cannot be resized, or a layer that no forward ran may
            read the filters.
    """
    tensors = {
        edit.tensor: find_owner_and_tensor(context.model, edit.tensor)[1] for edit in plan.tensors
    }
    problem = why_state_not_resizable(context.optimizers, tensors)
    if problem:
        raise EditRefusedError(problem)
    unused, is_certain = untraced_consumers(context, plan.tensors)
    if unused and not is_certain:
        raise EditRefusedError(f"{unused[0]} may read the filter, and no forward has run it so far")
