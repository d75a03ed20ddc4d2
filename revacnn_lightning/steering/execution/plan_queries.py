"""What performing a plan needs to know about it: what it draws at random, and what it moves."""

from __future__ import annotations

import msgspec

from revacnn_lightning.steering.execution.value_edits import randomly_drawn_indices
from revacnn_lightning.steering.holders.copy_plans import sync_copy_edits_with_origins
from revacnn_lightning.steering.planning.index_mapping import correct_consumer_columns
from revacnn_lightning.steering.planning.plan import (
    EditPlan,
    FilterMove,
    TensorEdit,
    ValueEdit,
    old_indices_and_new_mask,
)
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups

__all__ = [
    "are_normalized_together",
    "correct_plan_columns",
    "locate_random_entries",
    "random_edits",
]


def locate_random_entries(plan: EditPlan) -> list[tuple[str, int, int]]:
    """Return (tensor, dim, index) of every entry that a plan draws at random."""
    edits = random_edits(plan)
    return [(edit.tensor, edit.dim, i) for edit in edits for i in randomly_drawn_indices(edit)]


def random_edits(plan: EditPlan) -> list[TensorEdit | ValueEdit]:
    """Return the changes that draw random values."""
    edits: list[TensorEdit | ValueEdit] = [*plan.values, *plan.tensors]
    return [edit for edit in edits if randomly_drawn_indices(edit) and not edit.origin]


def correct_plan_columns(
    traced_before: ChannelGroups, traced_after: ChannelGroups, plan: EditPlan, *, strict: bool
) -> EditPlan:
    """Return the plan with each column of a consumer where the channel that it reads arrives.

    Returns ``plan`` itself if all columns were right.

    Raises:
        EditFailedError: a channel arrives at a consumer that did not read it before.
    """
    tensors = correct_consumer_columns(traced_before, traced_after, plan.tensors, strict=strict)
    if tensors == plan.tensors:
        return plan
    return sync_copy_edits_with_origins(msgspec.structs.replace(plan, tensors=tensors))


def are_normalized_together(channel_groups: ChannelGroups, plan: EditPlan) -> bool:
    """Return whether the edited channels are normalized together: then no output is expected."""
    moves = [move for move in plan.filters if move.layer in channel_groups.filters]
    edited = {g for m in moves for g in channel_groups.groups_of_filters(m.layer, _edited(m))}
    return bool(channel_groups.why_normalized_together(edited))


def _edited(move: FilterMove) -> list[int]:
    """Return the filters that a move removes or, if it adds filters, those it copies."""
    order, new = old_indices_and_new_mask(move)
    if new.any():
        return sorted(set(order[new].tolist()))
    return sorted(set(range(move.size)) - set(order.tolist()))
