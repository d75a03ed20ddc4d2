"""What a trial of the staged changes will cost, before it is requested."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.messages import Planned, Refused, Structure
from revacnn_lightning.protocol.requests import Redo, TryEdits, Undo
from revacnn_lightning.protocol.trial_requests import (
    MAX_TRIAL_BATCHES,
    MAX_TRIAL_EDITS,
    TrialEdit,
)
from revacnn_lightning.protocol.trial_state import TrialCost

from .staged_change import StagedChange

__all__ = ["StagedTrialCost"]

TOO_MANY = f"A trial takes at most {MAX_TRIAL_EDITS} changes."
CLIPPING = "Gradient clipping cannot be tried: apply it, or discard it to try the other changes."
DIRECTED = "A filter that is to be added where it helps most cannot be tried."
MIN_BATCHES = 2


class StagedTrialCost:
    """What a trial of the staged changes costs.

    It is requested once all staged changes are planned, and again when they change.

    Attributes:
        batches: the number of batches of the trial.
        refusal: why it cannot be tried; "" if it can, or if that is not known yet.
        cost: the cost of the trial; None before the run has replied.
    """

    def __init__(self) -> None:
        self.batches = 20
        self.refusal = ""
        self.cost: TrialCost | None = None
        self._planned: tuple[TryEdits, int] | None = None
        self._id = ""

    def set_batch_count(self, batch_count: int) -> None:
        """Set on how many batches to try."""
        self.batches = min(MAX_TRIAL_BATCHES, max(MIN_BATCHES, batch_count))

    def request_for(self, changes: Sequence[StagedChange], structure: Structure) -> TryEdits | None:
        """Return the request that tries the changes, in this order; None if there is none."""
        edits: list[TrialEdit] = [
            edit
            for one in changes
            if (edit := one.to_edit(structure)) is not None and not isinstance(edit, Undo | Redo)
        ]
        if not edits or _why_none(changes):
            return None
        return TryEdits(edits, self.batches)

    @property
    def is_possible(self) -> bool:
        """Whether the changes can be tried: their cost is known, or requested."""
        return self._planned is not None and not self.refusal

    def knows_cost(self, request: TryEdits) -> bool:
        """Return whether the cost is that of this request, not of an earlier one."""
        return self.cost is not None and self._planned is not None and self._planned[0] == request

    def update(
        self,
        changes: Sequence[StagedChange],
        structure: Structure,
        preview: Callable[[TryEdits, int], str],
    ) -> None:
        """Request the plan for these changes, unless it is requested already or one is refused."""
        request = self.request_for(changes, structure)
        if request is None or not all(isinstance(one.plan, Planned) for one in changes):
            self._planned, self.cost, self._id = None, None, ""
            self.refusal = _why_none(changes)
            return
        if self._planned == (request, structure.version):
            return
        self._planned, self.cost, self.refusal = (request, structure.version), None, ""
        try:
            self._id = preview(request, structure.version)
        except ProtocolError as error:
            self.refusal = str(error)

    def receive(self, plans: dict[str, Planned | Refused]) -> bool:
        """Receive the reply; return whether it has arrived just now."""
        reply = plans.get(self._id)
        if reply is None:
            return False
        self._id = ""
        if isinstance(reply, Refused):
            self.refusal = reply.reason
        else:
            self.cost = reply.plan.trial
        return True


def _why_none(changes: Sequence[StagedChange]) -> str:
    if any(one.clipping is not None for one in changes):
        return CLIPPING
    if any(one.is_directed for one in changes):
        return DIRECTED
    return TOO_MANY if len(changes) > MAX_TRIAL_EDITS else ""
