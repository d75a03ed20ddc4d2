"""Requests that change no size: other coefficients for a filter, and freezing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn.modules.conv import _ConvNd

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import messages, requests
from revacnn_lightning.steering.planning.context import Context, check_filters, conv_named, planner
from revacnn_lightning.steering.planning.plan import EditPlan, FreezeEdit, ValueEdit

__all__: list[str] = []


@planner(requests.Reinitialize)
def _reinitialize(context: Context, request: requests.Reinitialize) -> EditPlan:
    conv = conv_named(context.model, request.layer)
    check_filters(conv, request.layer, request.filters)
    listed = ", ".join(map(str, request.filters))
    plan = _same_size(context, request, f"Draw {request.layer} · {listed} anew")
    for name, dim in _filter_tensors(conv, request.layer):
        plan.values.append(ValueEdit(name, dim, sorted(request.filters), "fresh"))
    return _for_filters(context, plan, request.layer, request.filters)


@planner(requests.SetFilter)
def _set_filter(context: Context, request: requests.SetFilter) -> EditPlan:
    conv = conv_named(context.model, request.layer)
    check_filters(conv, request.layer, [request.filter])
    check_filters(conv, request.layer, request.neighbors)
    weights = request.weights
    if len(weights) != len(request.neighbors):
        raise EditRefusedError(f"{len(weights)} weights for {len(request.neighbors)} neighbours")
    if not all(math.isfinite(w) and w >= 0 for w in weights):
        raise EditRefusedError("the weights of the neighbours must be finite and not negative")
    total = sum(weights)
    if not 0 < total < math.inf:
        raise EditRefusedError("the weights of the neighbours must have a positive, finite sum")
    title = f"Set {request.layer} · {request.filter} to the mean of {len(weights)} neighbours"
    plan = _same_size(context, request, title)
    shares = [w / total for w in weights]
    for name, dim in _filter_tensors(conv, request.layer):
        plan.values.append(
            ValueEdit(name, dim, [request.filter], "mean", list(request.neighbors), shares)
        )
    return _for_filters(context, plan, request.layer, [request.filter])


@planner(requests.Freeze)
def _freeze(context: Context, request: requests.Freeze) -> EditPlan:
    return _freezing(context, request, frozen=True)


@planner(requests.Unfreeze)
def _unfreeze(context: Context, request: requests.Unfreeze) -> EditPlan:
    return _freezing(context, request, frozen=False)


def _freezing(
    context: Context, request: requests.Freeze | requests.Unfreeze, frozen: bool
) -> EditPlan:
    conv = conv_named(context.model, request.layer)
    everything = list(range(conv.out_channels))
    filters = everything if request.filters is None else request.filters
    check_filters(conv, request.layer, filters)
    if conv.transposed and conv.groups != 1 and sorted(filters) != everything:
        raise EditRefusedError(
            f"{request.layer} is transposed and grouped: it can be frozen as a whole only"
        )
    _filter_tensors(conv, request.layer, whole=True)
    already = set(context.frozen(request.layer))
    changed = [i for i in sorted(filters) if (i in already) != frozen]
    if not changed:
        state = "frozen already" if frozen else "not frozen"
        raise EditRefusedError(f"these filters of {request.layer} are {state}")
    verb = "Freeze" if frozen else "Unfreeze"
    what = "" if request.filters is None else f" · {', '.join(map(str, request.filters))}"
    plan = _same_size(context, request, f"{verb} {request.layer}{what}")
    norms = sorted(context.channels.norm_after.get(request.layer, ()))
    plan.freezes = [FreezeEdit(request.layer, conv.out_channels, changed, frozen, norms)]
    plan.sets = [messages.FilterChange(request.layer, removed=changed)]
    if any(type(o).__name__ == "LBFGS" for o in context.optimizers):
        plan.notes.append("LBFGS goes on as if frozen filters moved; they are put back each step")
    return plan


def _filter_tensors(conv: _ConvNd, layer: str, whole: bool = False) -> list[tuple[str, int]]:
    """(name, dimension) of the tensors that hold a conv's filters, one entry per filter."""
    if not isinstance(conv._parameters.get("weight"), Tensor):
        raise EditRefusedError(
            f"the weight of {layer} is computed from other parameters in each forward"
        )
    if conv.transposed and conv.groups != 1 and not whole:
        raise EditRefusedError(
            f"{layer} is transposed and grouped: its filters share their coefficients"
        )
    tensors = [(f"{layer}.weight", 1 if conv.transposed else 0)]
    if conv.bias is not None:
        tensors.append((f"{layer}.bias", 0))
    return tensors


def _same_size(context: Context, request: requests.Edit, title: str) -> EditPlan:
    count = sum(p.numel() for p in context.model.parameters())
    return EditPlan(request, title, parameters_before=count, parameters_after=count)


def _for_filters(context: Context, plan: EditPlan, layer: str, filters: Sequence[int]) -> EditPlan:
    frozen = sorted(set(context.frozen(layer)) & set(filters))
    if frozen:
        raise EditRefusedError(f"filter {frozen[0]} of {layer} is frozen; unfreeze it first")
    plan.sets = [messages.FilterChange(layer, removed=sorted(filters))]
    return plan
