"""Plans the undo of the newest edits of a journal."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering.journal import Journal
from revacnn_lightning.steering.planning.macs import count_macs
from revacnn_lightning.steering.planning.plan import EditPlan
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups

__all__ = ["plan_undo"]


def plan_undo(
    request: requests.Undo,
    journal: Journal,
    model: nn.Module,
    channel_groups: Callable[[], ChannelGroups],
) -> EditPlan:
    """Return the summary of an undo; its changes are those of the undone plans.

    Raises:
        EditRefusedError: that many edits cannot be undone.
    """
    if request.count < 1:
        raise EditRefusedError(
            f"the number of edits to undo is {request.count}; it must be at least 1"
        )
    if request.count > journal.undoable:
        raise EditRefusedError(f"{request.count} edits cannot be undone; {journal.undoable} can")
    entries = journal.entries[-request.count :]
    parameters = sum(p.numel() for p in model.parameters())
    # Plans of earlier versions of this package hold no MACs.
    known = all(entry.plan.macs_before for entry in entries)
    macs = count_macs(channel_groups()) if known else 0
    titles = [entry.plan.title for entry in reversed(entries)]
    return EditPlan(
        request,
        f"Undo: {'; '.join(titles)}",
        parameters_before=parameters,
        parameters_after=parameters
        - sum(e.plan.parameters_after - e.plan.parameters_before for e in entries),
        macs_before=macs,
        macs_after=macs - sum(e.plan.macs_after - e.plan.macs_before for e in entries),
    )
