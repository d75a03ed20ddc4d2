"""What performing a plan needs to know about it: what it draws at random, and what it moves."""

from __future__ import annotations

import msgspec

from revacnn_lightning.steering.execution.value_edits import random_entries
from revacnn_lightning.steering.holders.copy_plans import with_origins
from revacnn_lightning.steering.planning.index_mapping import realign_columns
from revacnn_lightning.steering.planning.plan import (
    EditPlan,
    FilterMove,
    TensorEdit,
    ValueEdit,
    order_of,
)
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups

__all__ = ["are_normalized_together", "random_edits", "random_filters", "realigned_plan"]


def random_filters(plan: EditPlan) -> list[tuple[str, int, int]]:
    """Return (tensor, dim, index) of every entry that is drawn at random."""
    edits = random_edits(plan)
    return [(edit.tensor, edit.dim, i) for edit in edits for i in random_entries(edit)]


def random_edits(plan: EditPlan) -> list[TensorEdit | ValueEdit]:
    """Return the changes that draw random values."""
    edits: list[TensorEdit | ValueEdit] = [*plan.values, *plan.tensors]
    return [edit for edit in edits if random_entries(edit) and not edit.origin]


def realigned_plan(
    before: ChannelGroups, after: ChannelGroups, plan: EditPlan, *, strict: bool
) -> EditPlan:
    """Return the plan with the columns of consumers where their channels arrive.

    Returns ``plan`` itself if they were right.

    Raises:
        EditFailedError: a channel arrives at a consumer that did not read it before.
    """
    tensors = realign_columns(before, after, plan.tensors, strict=strict)
    if tensors == plan.tensors:
        return plan
    return with_origins(msgspec.structs.replace(plan, tensors=tensors))


def are_normalized_together(groups: ChannelGroups, plan: EditPlan) -> bool:
    """Return whether the edited channels are normalized together: then no output is expected."""
    moves = [move for move in plan.filters if move.layer in groups.filters]
    edited = {g for m in moves for g in groups.groups_of_filters(m.layer, _edited(m))}
    return bool(groups.why_normalized_together(edited))


def _edited(move: FilterMove) -> list[int]:
    """Return the filters that a move removes or, if it adds filters, those it copies."""
    order, new = order_of(move)
    if new.any():
        return sorted(set(order[new].tolist()))
    return sorted(set(range(move.size)) - set(order.tolist()))
