"""Why a layer, or some filters of it, cannot be edited, and the checks that refuse such edits."""

from __future__ import annotations

from collections.abc import Sequence

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.steering.planning.context import PlanningContext
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups

__all__ = ["check_channels_may_change", "check_layer_resizable", "why_layer_not_resizable"]


def why_layer_not_resizable(channel_groups: ChannelGroups, layer: str) -> str:
    """Return why no filter of this layer can be added or removed; "" if some can."""
    if layer in channel_groups.untraced:
        return _why_untraced(channel_groups, layer)
    if layer in channel_groups.unlabeled:
        return f"{layer} {channel_groups.unlabeled[layer]}"
    reasons = [
        channel_groups.why_fixed([g])
        for g in channel_groups.groups_of_channels(channel_groups.filters[layer])
    ]
    return f"filters of {layer} {reasons[0]}" if all(reasons) else ""


def _why_untraced(channel_groups: ChannelGroups, layer: str) -> str:
    """Return why a layer that no forward runs cannot be edited."""
    is_read = any(dimension.tensor == f"{layer}.weight" for dimension in channel_groups.dimensions)
    if is_read and f"{layer}.weight" not in channel_groups.unused:
        return f"{layer} is not run as a layer, but other operations read its weight"
    return (
        f"{layer} was not run by any forward of the model; it can be edited when a training step "
        "runs it, or pass the option forward=... with a forward that does"
    )


def check_layer_resizable(context: PlanningContext, layer: str) -> None:
    """Check that some filter of the layer can be added or removed.

    Raises:
        EditRefusedError: no filter can.
    """
    reason = why_layer_not_resizable(context.groups, layer)
    if reason:
        raise EditRefusedError(reason)


def check_channels_may_change(context: PlanningContext, layer: str, groups: Sequence[int]) -> None:
    """Check that these channel groups, of filters of ``layer``, may be edited.

    Raises:
        EditRefusedError: one of them is fixed.
    """
    reason = context.groups.why_fixed(groups)
    if reason:
        raise EditRefusedError(f"these filters of {layer} {reason}")
