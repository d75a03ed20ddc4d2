"""Plans the undo of the newest edits of a journal, and the redo of undone ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering.journal import Journal
from revacnn_lightning.steering.planning.macs import count_macs
from revacnn_lightning.steering.planning.plan import EditPlan
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups

__all__ = ["plan_redo", "plan_undo"]


def plan_undo(
    request: requests.Undo,
    journal: Journal,
    model: nn.Module,
    channel_groups: Callable[[], ChannelGroups] | None,
) -> EditPlan:
    """Return a plan that describes an undo. Its changes are those of the undone plans.

    Args:
        channel_groups: a function that returns the present channel groups. With None, the
            multiply-accumulates remain unknown.

    Raises:
        EditRefusedError: that many edits cannot be undone.
    """
    if request.count < 1:
        raise EditRefusedError(
            f"the number of edits to undo is {request.count}; it must be at least 1"
        )
    if request.count > journal.undoable:
        raise EditRefusedError(f"{request.count} edits cannot be undone; {journal.undoable} can")
    plans = [entry.plan for entry in reversed(journal.entries[-request.count :])]
    return _summary(request, "Undo", plans, -1, model, channel_groups)


def plan_redo(
    request: requests.Redo,
    journal: Journal,
    model: nn.Module,
    channel_groups: Callable[[], ChannelGroups] | None,
) -> EditPlan:
    """Return a plan that describes a redo. Its changes are those of the redone plans.

    Args:
        channel_groups: as in `plan_undo`.

    Raises:
        EditRefusedError: that many edits cannot be redone.
    """
    if request.count < 1:
        raise EditRefusedError(
            f"the number of edits to redo is {request.count}; it must be at least 1"
        )
    if request.count > len(journal.undone):
        raise EditRefusedError(
            f"{request.count} edits cannot be redone; {len(journal.undone)} can (a new edit "
            "discards the undone ones)"
        )
    plans = [edit.plan for edit in reversed(journal.undone[-request.count :])]
    return _summary(request, "Redo", plans, 1, model, channel_groups)


def _summary(
    request: requests.Undo | requests.Redo,
    verb: str,
    plans: Sequence[EditPlan],
    sign: int,
    model: nn.Module,
    channel_groups: Callable[[], ChannelGroups] | None,
) -> EditPlan:
    """Return the plan of undoing (``sign`` -1) or redoing (1) plans, in this order."""
    parameters = sum(p.numel() for p in model.parameters())
    # Plans of earlier versions of this package hold no MACs.
    known = all(plan.macs_before for plan in plans)
    macs = count_macs(channel_groups()) if channel_groups is not None and known else 0
    return EditPlan(
        request,
        f"{verb}: {'; '.join(plan.title for plan in plans)}",
        parameters_before=parameters,
        parameters_after=parameters
        + sign * sum(plan.parameters_after - plan.parameters_before for plan in plans),
        macs_before=macs,
        macs_after=macs + sign * sum(plan.macs_after - plan.macs_before for plan in plans),
    )
