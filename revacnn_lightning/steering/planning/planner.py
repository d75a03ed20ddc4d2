"""Dispatches a request to the planner of its kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from revacnn_lightning.protocol import requests
from revacnn_lightning.steering.planning.context import PlanningContext
from revacnn_lightning.steering.planning.filter_freezing import plan_freezing, plan_unfreezing
from revacnn_lightning.steering.planning.filter_growth import plan_growth
from revacnn_lightning.steering.planning.filter_removal import plan_merging, plan_removal
from revacnn_lightning.steering.planning.filter_values import (
    plan_reinitialization,
    plan_weighted_mean,
)
from revacnn_lightning.steering.planning.layer_changes import (
    plan_layer_insertion,
    plan_layer_removal,
)
from revacnn_lightning.steering.planning.learning_rate import plan_layer_rate_scaling
from revacnn_lightning.steering.planning.macs import count_macs, count_macs_after
from revacnn_lightning.steering.planning.plan import EditPlan

__all__ = ["make_plan"]

_PLANNERS: dict[type, Callable[[PlanningContext, Any], EditPlan]] = {
    requests.AddFilters: plan_growth,
    requests.RemoveFilters: plan_removal,
    requests.MergeFilters: plan_merging,
    requests.InsertLayer: plan_layer_insertion,
    requests.RemoveLayer: plan_layer_removal,
    requests.Freeze: plan_freezing,
    requests.Unfreeze: plan_unfreezing,
    requests.ScaleLearningRate: plan_layer_rate_scaling,
    requests.Reinitialize: plan_reinitialization,
    requests.SetFilter: plan_weighted_mean,
}


def make_plan(context: PlanningContext, request: requests.Edit) -> EditPlan:
    """Return the plan of any edit but an undo.

    Raises:
        EditRefusedError: the request cannot be carried out; the message says why.
    """
    plan = _PLANNERS[type(request)](context, request)
    plan.macs_before = count_macs(context.groups)
    plan.macs_after = count_macs_after(context.groups, plan, context.model)
    return plan
