"""From a request to an `EditPlan`, or to the sentence that says why there is none.

Nothing in here touches the model.
"""

from __future__ import annotations

from revacnn_lightning.protocol import requests
from revacnn_lightning.steering.planning import filters, layers, values
from revacnn_lightning.steering.planning.context import PLANNERS, Context
from revacnn_lightning.steering.planning.macs import macs_of, macs_with
from revacnn_lightning.steering.planning.plan import EditPlan

__all__ = ["Context", "filters", "layers", "make_plan", "values"]


def make_plan(context: Context, request: requests.Edit) -> EditPlan:
    """Plan a request.

    Raises:
        Refused: it cannot be done; the message says why.
    """
    plan = PLANNERS[type(request)](context, request)
    plan.macs_before = macs_of(context.channels)
    plan.macs_after = macs_with(context.channels, plan, context.model)
    return plan
