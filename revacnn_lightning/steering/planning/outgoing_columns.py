"""The outgoing weights of filters: the columns of the layers that read them."""

from __future__ import annotations

from collections.abc import Sequence

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.steering.planning.context import PlanningContext
from revacnn_lightning.steering.planning.lookup import find_layer, find_owner_and_tensor
from revacnn_lightning.steering.planning.plan import ValueEdit
from revacnn_lightning.telemetry.unit_layers import UnitLayer, group_count, input_count

__all__ = ["outgoing_zeroing_edits"]


def outgoing_zeroing_edits(
    context: PlanningContext, layer: str, filters: Sequence[int]
) -> list[ValueEdit]:
    """Return the edits that set the outgoing weights of these filters, and no others, to zero.

    Raises:
        EditRefusedError: this is not possible; the message says why.
    """
    groups = context.groups
    if layer not in groups.filters:
        raise EditRefusedError(f"no forward has shown what reads {layer}")
    edited = groups.groups_of_filters(layer, filters)
    reason = groups.why_fixed(edited)
    if reason:
        raise EditRefusedError(f"these filters of {layer} {reason}")
    reason = groups.why_normalized_together(edited)
    if reason:
        raise EditRefusedError(f"these filters change others: {reason}")
    passing = _layers_passed(context, layer, filters, edited)
    edits = []
    for (name, dim), indices in sorted(groups.members(edited).items()):
        if groups.produces_channels(name, dim, indices):
            if name.rpartition(".")[0] not in passing:
                raise EditRefusedError(f"{name} produces the same channels as {layer}")
        elif groups.reads_channels(name, dim, indices):
            _check_plain(context, name)
            edits.append(ValueEdit(name, dim, indices.tolist(), "zero"))
    if not edits:
        raise EditRefusedError(f"no layer reads these filters of {layer}")
    return edits


def _layers_passed(
    context: PlanningContext, layer: str, filters: Sequence[int], edited: Sequence[int]
) -> set[str]:
    """Return the layer and the depthwise convs behind it, each of whose filters reads one of its.

    Raises:
        EditRefusedError: the columns of these groups read other filters as well.
    """
    passing = {layer}
    for name, indices in context.groups.filters_in(edited).items():
        conv = find_layer(context.model, name)
        if name == layer:
            others = sorted(set(indices) - set(filters))
            if others:
                raise EditRefusedError(f"they are coupled to filter {others[0]} of {layer}")
        elif 1 < group_count(conv) == input_count(conv):
            passing.add(name)
        else:
            raise EditRefusedError(f"they are coupled to filters of {name}")
    return passing


def _check_plain(context: PlanningContext, name: str) -> None:
    """Check that a weight's columns can be set to zero on their own.

    Raises:
        EditRefusedError: they cannot: the weight is computed, or holds frozen filters.
    """
    owner, _ = find_owner_and_tensor(context.model, name)
    reader, _, own_name = name.rpartition(".")
    if own_name != "weight" or not isinstance(owner, UnitLayer):
        raise EditRefusedError(f"{name}, which reads them, is not the weight of a conv or linear")
    if context.frozen(reader):
        raise EditRefusedError(f"{reader}, which reads them, has frozen filters")
