"""Plans new coefficients for filters: reinitialized, or the mean of other filters."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import messages, requests
from revacnn_lightning.steering.computed_tensors import has_tensor
from revacnn_lightning.steering.planning.context import PlanningContext
from revacnn_lightning.steering.planning.lookup import check_filters, find_layer
from revacnn_lightning.steering.planning.outgoing_columns import outgoing_zeroing_edits
from revacnn_lightning.steering.planning.plan import EditPlan, ValueEdit
from revacnn_lightning.telemetry.unit_layers import UnitLayer, group_count, is_transposed

__all__ = ["empty_plan", "plan_reinitialization", "plan_weighted_mean"]


OUTGOING_ZERO = "the outgoing weights become zero, as those of new filters"
LOSES_CONTRIBUTION = (
    "output changes: it loses what these filters contribute, which is nothing if they are silent"
)


def plan_reinitialization(context: PlanningContext, request: requests.Reinitialize) -> EditPlan:
    """Plan drawing the coefficients of filters again, as the layer's own initialization does.

    Batch norms behind them start over as well: with a gain of zero, the filters would stay dead.
    Their outgoing weights become zero where no other filter shares them: random coefficients with
    trained outgoing weights would disturb the layers behind.
    """
    conv = find_layer(context.model, request.layer)
    check_filters(conv, request.layer, request.filters)
    filters = sorted(request.filters)
    values = [
        ValueEdit(name, dim, filters, "fresh") for name, dim in _filter_tensors(conv, request.layer)
    ]
    values += _norm_values(context, request.layer, filters)
    what = "filter" if len(filters) == 1 else "filters"
    title = f"Reinitialize {request.layer} · {what} {', '.join(map(str, filters))}"
    note, effect = "the outgoing weights are kept", "output changes"
    if request.zero_outgoing:
        try:
            values += outgoing_zeroing_edits(context, request.layer, filters)
            note, effect = OUTGOING_ZERO, LOSES_CONTRIBUTION
        except EditRefusedError as error:
            note += f", because {error}"
    plan = _values_plan(context, request, title, values, filters)
    plan.notes.append(note)
    plan.output_effect = effect
    return plan


def plan_weighted_mean(context: PlanningContext, request: requests.SetFilter) -> EditPlan:
    """Plan setting a filter to the weighted mean of others."""
    conv = find_layer(context.model, request.layer)
    check_filters(conv, request.layer, [request.filter])
    check_filters(conv, request.layer, request.neighbors)
    shares = _normalized(request.weights, len(request.neighbors))
    sources = list(request.neighbors)
    values = [
        ValueEdit(name, dim, [request.filter], "mean", sources, shares)
        for name, dim in _filter_tensors(conv, request.layer)
    ]
    title = (
        f"Set {request.layer} · filter {request.filter} to the mean of {len(sources)} "
        f"{'neighbor' if len(sources) == 1 else 'neighbors'}"
    )
    plan = _values_plan(context, request, title, values, [request.filter])
    plan.output_effect = "output changes unless the filter is this mean already"
    return plan


def _normalized(weights: Sequence[float], neighbors: int) -> list[float]:
    """Return the weights divided by their sum."""
    if len(weights) != neighbors:
        raise EditRefusedError(
            f"{len(weights)} weights for {neighbors} neighbors; give one weight for each"
        )
    if not all(math.isfinite(w) and w >= 0 for w in weights):
        raise EditRefusedError("the weights of the neighbors must be finite and not negative")
    total = sum(weights)
    if not 0 < total < math.inf:
        raise EditRefusedError("the weights of the neighbors must have a positive, finite sum")
    return [w / total for w in weights]


def _values_plan(
    context: PlanningContext,
    request: requests.Reinitialize | requests.SetFilter,
    title: str,
    values: list[ValueEdit],
    filters: list[int],
) -> EditPlan:
    frozen = sorted(set(context.frozen(request.layer)) & set(filters))
    if frozen:
        raise EditRefusedError(
            f"filter {frozen[0]} of {request.layer} is frozen; unfreeze it first"
        )
    plan = empty_plan(context, request, title)
    plan.values = values
    plan.filter_changes = [messages.FilterChange(request.layer, filters=filters)]
    return plan


def empty_plan(context: PlanningContext, request: requests.Edit, title: str) -> EditPlan:
    """Return an empty plan that leaves the number of parameters as it is."""
    count = context.count_parameters()
    return EditPlan(request, title, parameters_before=count, parameters_after=count)


def _check_plain(conv: UnitLayer, layer: str) -> None:
    """Check that weight and bias are parameters of the conv, not computed as by ``weight_norm``.

    Raises:
        EditRefusedError: one of them is computed.
    """
    for name in ("weight", "bias"):
        is_missing = name == "bias" and not has_tensor(conv, name)
        if conv._parameters.get(name) is None and not is_missing:
            raise EditRefusedError(
                f"the {name} of {layer} is computed from other parameters in each forward; its "
                "filters cannot be set"
            )


def _norm_values(context: PlanningContext, layer: str, filters: list[int]) -> list[ValueEdit]:
    """Return what lets the batch norms of these filters alone start over."""
    return [
        ValueEdit(f"{name}.{tensor}", 0, filters, "start")
        for name in sorted(context.groups.norm_after.get(layer, ()))
        for tensor in ("weight", "bias", "running_mean", "running_var")
        if _has_own(context.model.get_submodule(name), tensor)
    ]


def _has_own(norm: nn.Module, name: str) -> bool:
    return norm._parameters.get(name) is not None or norm._buffers.get(name) is not None


def _filter_tensors(conv: UnitLayer, layer: str) -> list[tuple[str, int]]:
    """Return (name, dimension) of the tensors that hold a conv's filters, one entry per filter."""
    _check_plain(conv, layer)
    if is_transposed(conv) and group_count(conv) != 1:
        raise EditRefusedError(
            f"{layer} is transposed and grouped: its filters share coefficients and cannot be set "
            "one by one"
        )
    tensors = [(f"{layer}.weight", int(is_transposed(conv)))]
    if has_tensor(conv, "bias"):
        tensors.append((f"{layer}.bias", 0))
    return tensors
