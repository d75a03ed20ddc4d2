"""Plans scaling the learning rate of a layer."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import messages, requests
from revacnn_lightning.steering.planning.context import PlanningContext
from revacnn_lightning.steering.planning.filter_values import empty_plan
from revacnn_lightning.steering.planning.lookup import find_layer
from revacnn_lightning.steering.planning.plan import EditPlan, RateEdit
from revacnn_lightning.telemetry.module_tree import list_named_modules
from revacnn_lightning.telemetry.unit_layers import (
    UnitLayer,
    filter_count,
    named_unit_layers,
    own_parameters,
)

__all__ = ["MAX_FACTOR", "MIN_FACTOR", "NOT_LINEAR", "plan_layer_rate_scaling"]

# Below, updates of float32 weights vanish in rounding. Above, the rate of the optimizer is meant.
MIN_FACTOR, MAX_FACTOR = 1e-6, 100.0
NOT_LINEAR = {
    "ASGD": "also decays its steps by a power of the learning rate",
    "Adafactor": "limits its learning rate by the number of steps",
    "LBFGS": "takes its next direction from the whole last step",
    "Rprop": "uses its learning rate for the first step only",
}


def plan_layer_rate_scaling(
    context: PlanningContext, request: requests.ScaleLearningRate
) -> EditPlan:
    """Plan scaling the learning rate of a layer, and of layers that share parameters with it."""
    layer, factor = request.layer, request.factor
    scaled = find_layer(context.model, layer)
    _check_factor(layer, factor)
    if not any(True for _ in own_parameters(scaled)):
        raise EditRefusedError(f"{layer} has no parameters of its own to train")
    layers = _sharing_layers(context.model, scaled)
    if all(context.rate(name) == factor for name in layers):
        raise EditRefusedError(
            f"the learning rate of {layer} is {factor:g} × that of its optimizer already"
        )
    rate = f"{factor:g} × the learning rate" if factor != 1 else "the full learning rate"
    plan = empty_plan(context, request, f"Train {layer} at {rate}")
    for name, one in layers.items():
        norms = sorted(context.groups.norm_after.get(name, ()))
        size = filter_count(one)
        plan.rates.append(RateEdit(name, size, factor, norms))
        plan.filter_changes.append(messages.FilterChange(name, filters=list(range(size))))
    plan.output_effect = messages.OUTPUT_UNCHANGED
    if len(layers) > 1:
        plan.coupling = "layers that share parameters have one learning rate"
    plan.notes += _notes(context, layers, plan.rates)
    return plan


def _check_factor(layer: str, factor: float) -> None:
    """Check the factor of a request.

    Raises:
        EditRefusedError: it is not one that a layer can be trained with.
    """
    if not math.isfinite(factor) or factor < 0:
        raise EditRefusedError(
            f"the factor of a learning rate must be finite and positive, not {factor}"
        )
    if factor < MIN_FACTOR:
        raise EditRefusedError(
            f"with {factor:g} × its learning rate, {layer} would not train; freeze it instead"
        )
    if factor > MAX_FACTOR:
        raise EditRefusedError(
            f"the factor of a learning rate must be at most {MAX_FACTOR:g}, not {factor:g}; raise "
            "the learning rate of the optimizer instead"
        )


def _sharing_layers(model: nn.Module, layer: UnitLayer) -> dict[str, UnitLayer]:
    """Return a layer and those that share parameters with it, or with such a layer, by name."""
    layers = dict(named_unit_layers(model))
    own = _ids(layer)
    while True:
        sharing = {name: one for name, one in layers.items() if own & _ids(one)}
        grown = own.union(*map(_ids, sharing.values()))
        if grown == own:
            return sharing
        own = grown


def _ids(layer: UnitLayer) -> set[int]:
    return {id(parameter) for parameter in own_parameters(layer)}


def _notes(
    context: PlanningContext, layers: dict[str, UnitLayer], rates: Iterable[RateEdit]
) -> list[str]:
    notes = []
    norms = [norm for rate in rates for norm in rate.norms]
    if norms:
        plural = "s" if len(norms) > 1 else ""
        notes.append(
            f"the learning rate of the batch norm{plural} {', '.join(norms)} is scaled, too"
        )
    own = set[int]().union(*map(_ids, layers.values()))
    for name, module in list_named_modules(context.model):
        is_other = module not in layers.values() and "parametrizations" not in name.split(".")
        if is_other and any(id(p) in own for p in module.parameters(recurse=False)):
            notes.append(f"{name} shares parameters, whose learning rate is scaled, too")
    for kind in sorted({type(optimizer).__name__ for optimizer in context.optimizers}):
        if kind in NOT_LINEAR:
            notes.append(f"{kind} {NOT_LINEAR[kind]}; each of its steps is scaled instead")
    frozen = [
        name for name, one in layers.items() if len(context.frozen(name)) == filter_count(one)
    ]
    if frozen:
        notes.append(f"{', '.join(frozen)} is frozen: the factor acts when it is unfrozen")
    return notes
