"""New filters whose output is zero wherever it is read."""

from __future__ import annotations

from collections.abc import Callable

from revacnn_lightning.steering.execution.edit_forwards import EditForwards
from revacnn_lightning.steering.execution.initialization import Initializer
from revacnn_lightning.steering.planning.plan import EditPlan
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups

__all__ = ["draw_silent_filters_again"]

# A fresh filter is active on about half of all inputs; after eight silent draws, assume that its
# input is silent.
MAX_DRAWS = 8


def draw_silent_filters_again(
    forwards: EditForwards,
    plan: EditPlan,
    traced: ChannelGroups,
    draw: Callable[[Initializer], None],
    initializer: Initializer,
) -> ChannelGroups:
    """Draw the new filters of a plan again while one is silent; return the last trace.

    A filter that is silent behind a ReLU from the start gets no gradient.

    Args:
        traced: the trace that has shown a silent filter, with norms as in evaluation.
        draw: a function that draws the values of the new filters.
    """
    traced = forwards.trace_as_trained(plan, traced)
    for _ in range(MAX_DRAWS):
        if not len(traced.silent_channels):
            return traced
        draw(initializer)
        traced = forwards.trace_as_trained(plan, traced)
    if len(traced.silent_channels):
        plan.notes.append(
            f"a new filter is silent on the verifying batch, also after {MAX_DRAWS} "
            "initializations; its input may be silent"
        )
    return traced
