"""Why a layer, or some filters of it, cannot be edited, and the checks that refuse such edits."""

from __future__ import annotations

from collections.abc import Sequence

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.steering.planning.context import PlanningContext
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups

__all__ = ["NOT_RUN", "check_editable", "check_not_fixed", "why_not_editable"]

NOT_RUN = (
    "{layer} was not run by any forward of the model; it can be edited when a training step runs "
    "it, or pass ReVACNN(forward=...) with a forward that does"
)


def why_not_editable(groups: ChannelGroups, layer: str) -> str:
    """Return why no filter of this conv can be added or removed; "" if some can."""
    if layer in groups.untraced:
        return NOT_RUN.format(layer=layer)
    if layer in groups.unlabeled:
        return (
            f"{layer} has a single filter, whose path through the network cannot be told apart "
            "from a constant's"
        )
    reasons = [groups.why_fixed([g]) for g in groups.groups_of_channels(groups.filters[layer])]
    return f"filters of {layer} {reasons[0]}" if all(reasons) else ""


def check_editable(context: PlanningContext, layer: str) -> None:
    """Check that some filter of the conv can be added or removed.

    Raises:
        EditRefusedError: none can.
    """
    reason = why_not_editable(context.groups, layer)
    if reason:
        raise EditRefusedError(reason)


def check_not_fixed(context: PlanningContext, layer: str, groups: Sequence[int]) -> None:
    """Check that these channel groups, of filters of ``layer``, may be edited.

    Raises:
        EditRefusedError: one of them is fixed.
    """
    reason = context.groups.why_fixed(groups)
    if reason:
        raise EditRefusedError(f"these filters of {layer} {reason}")
