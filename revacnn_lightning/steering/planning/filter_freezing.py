"""Plans freezing and unfreezing filters."""

from __future__ import annotations

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import messages, requests
from revacnn_lightning.steering.computed_tensors import tensors_defining_filters
from revacnn_lightning.steering.planning.context import PlanningContext
from revacnn_lightning.steering.planning.filter_values import empty_plan
from revacnn_lightning.steering.planning.lookup import check_filters, find_layer
from revacnn_lightning.steering.planning.plan import EditPlan, FreezeOrUnfreezeEdit
from revacnn_lightning.telemetry.unit_layers import filter_count, group_count, is_transposed

__all__ = ["plan_freezing", "plan_unfreezing"]


def plan_freezing(context: PlanningContext, request: requests.Freeze) -> EditPlan:
    """Plan keeping filters exactly as they are while the rest trains."""
    return _plan(context, request, frozen=True)


def plan_unfreezing(context: PlanningContext, request: requests.Unfreeze) -> EditPlan:
    """Plan letting frozen filters train again."""
    return _plan(context, request, frozen=False)


def _plan(
    context: PlanningContext, request: requests.Freeze | requests.Unfreeze, *, frozen: bool
) -> EditPlan:
    layer = request.layer
    conv = find_layer(context.model, layer)
    every = list(range(filter_count(conv)))
    filters = every if request.filters is None else request.filters
    check_filters(conv, layer, filters)
    if is_transposed(conv) and group_count(conv) != 1 and sorted(filters) != every:
        raise EditRefusedError(
            f"{layer} is transposed and grouped: freeze or unfreeze the whole layer instead"
        )
    if tensors_defining_filters(conv) is None:
        raise EditRefusedError(
            f"the weight of {layer} is computed from other parameters in each forward, not filter "
            "by filter; its filters cannot be frozen"
        )
    already = set(context.frozen(layer))
    changed = [i for i in sorted(filters) if (i in already) != frozen]
    if not changed:
        state = "frozen already" if frozen else "not frozen"
        raise EditRefusedError(f"these filters of {layer} are {state}")
    verb = "Freeze" if frozen else "Unfreeze"
    plan = empty_plan(context, request, f"{verb} {layer}{_listed(request.filters)}")
    norms = sorted(context.groups.norm_after.get(layer, ()))
    plan.freezes = [FreezeOrUnfreezeEdit(layer, filter_count(conv), changed, frozen, norms)]
    plan.filter_changes = [messages.FilterChange(layer, filters=changed)]
    plan.output_effect = messages.OUTPUT_UNCHANGED
    if any(type(o).__name__ == "LBFGS" for o in context.optimizers):
        plan.notes.append(
            "LBFGS updates frozen filters internally; they are restored after each step"
        )
    return plan


def _listed(filters: list[int] | None) -> str:
    if filters is None:
        return ""
    what = "filter" if len(filters) == 1 else "filters"
    return f" · {what} {', '.join(map(str, filters))}"
