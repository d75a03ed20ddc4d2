"""Sends staged changes to the training: plans first, then one request after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.messages import Refused, Structure
from revacnn_lightning.protocol.requests import (
    Command,
    Redo,
    RequestBody,
    SetGradientClipping,
    SetHyperparameter,
    TryEdits,
    Undo,
)

from ..runs.change_order import RequestRecord
from ..runs.run_state import RunState
from .edit_groups import UndoRedoGroup
from .run_selection import RunSelection
from .staged_change import StagedChange
from .staged_changes import StagedChanges
from .trial_plan import StagedTrialCost

__all__ = ["EditQueue"]

BUSY = "The last request of this page has no reply yet."
NOTHING_STAGED = "Nothing is staged."
COST_AWAITED = "The trial begins as soon as its cost is known."
REPLY_TIMEOUT_SECONDS = 60.0  # the next request is sent without the reply after this time


class EditQueue:
    """The requests of one tab.

    Attributes:
        revision: counted up with every change that a component may show.
        shown_reply: the request whose reply is shown above the staging bar; None if dismissed.
        error: why the last request could not be sent; "" if it was sent.
        is_inserting: whether this tab has requested a layer that the structure lacks so far.
        trial: the plan of a trial of the staged changes.
    """

    def __init__(self, run_selection: RunSelection, staging: StagedChanges) -> None:
        self._run_selection = run_selection
        self.staging = staging
        self.revision = 0
        self.shown_reply: RequestRecord | None = None
        self.error = ""
        self.is_inserting = False
        self.trial = StagedTrialCost()
        self._queue: list[StagedChange] = []
        self._pending_id = ""  # id of the request whose reply is pending
        self._tried: TryEdits | None = None  # to be sent once its cost is known
        self._groups = UndoRedoGroup()
        self._on_reply: Callable[[int], None] = self._groups.on_applied  # receives the version
        # The newest request of each rate: (optimizer, group, name) -> value, record
        self._rates: dict[tuple[int, int, str], tuple[float, RequestRecord]] = {}
        self._clipping: tuple[SetGradientClipping, RequestRecord] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether staged changes are being applied."""
        return bool(self._queue or self._pending_id)

    @property
    def reply_age(self) -> float:
        """Seconds since the request of the shown reply was sent."""
        return 0.0 if self.shown_reply is None else time.time() - self.shown_reply.sent

    def can_apply(self) -> bool:
        """Return whether something is staged, no plan is refused, and none is to be confirmed."""
        changes = self.staging.changes
        return (
            bool(changes)
            and not any(isinstance(change.plan, Refused) for change in changes)
            and not self.needs_confirmation()
        )

    def apply_hint(self) -> str:
        """Return what Apply does, or why it does nothing, in words."""
        if not self.staging.changes:
            return NOTHING_STAGED
        if self.is_busy:
            return BUSY
        if self.needs_confirmation():
            return "Confirm the change of the output first"
        is_refused = any(isinstance(change.plan, Refused) for change in self.staging.changes)
        return "The training refuses a change" if is_refused else "Send to the training"

    def needs_confirmation(self) -> bool:
        """Return whether a staged change has to be confirmed before it can be applied."""
        return any(one.confirmation and not one.is_confirmed for one in self.staging.changes)

    def reset(self) -> None:
        """Discard everything staged, pending or shown, because another run is shown."""
        self.staging.discard()
        self._queue, self._pending_id, self.shown_reply, self._tried = [], "", None, None
        self.is_inserting = False
        self._groups = UndoRedoGroup()
        self._rates, self._clipping = {}, None

    # Actions of the page

    def apply_staged(self) -> None:
        """Send all staged changes in order, each after the reply to the one before."""
        if self._shows_busy():
            return
        if not self.can_apply():
            self.error = self.apply_hint()
            return
        self._queue = self.staging.in_send_order()
        self._groups.begin()

    def _shows_busy(self) -> bool:
        """Return whether a request has no reply yet; if so, show that."""
        if self.is_busy:
            self.error = BUSY
        return self.is_busy

    def try_staged(self, structure: Structure) -> None:
        """Send a trial of all staged changes together."""
        request = self.trial.request_for(self.staging.in_send_order(), structure)
        if self._shows_busy():
            return
        if not self.can_apply() or self.trial.refusal or request is None:
            self.error = self.trial.refusal or self.apply_hint()
            return
        self._tried, self.error = request, COST_AWAITED
        self._send_tried(structure)

    def _send_tried(self, structure: Structure) -> None:
        """Send the trial once its cost is known, unless what is staged has changed meanwhile.

        Whoever types a number of batches may press Try before the run has replied what they cost.
        """
        changes = self.staging.in_send_order()
        request = self.trial.request_for(changes, structure)
        if request != self._tried or self.trial.refusal or not self.can_apply():
            self._tried, self.error = None, self.trial.refusal
            self.revision += 1
        elif request is not None and self.trial.knows_cost(request):
            self._tried, self.error = None, ""
            what = f"{len(changes)} changes"
            if len(changes) == 1:
                what = f"{changes[0].verb} {changes[0].title(structure)}"
            title = f"Trial on {request.batches} batches: {what}"
            if self._send(request, title, structure.version) and self.shown_reply is not None:
                self.shown_reply.is_trial = True
            self.staging.discard()

    def undo(self, structure: Structure) -> None:
        """Request to undo the edits of the last Apply, or the last edit if others came since."""
        if self._shows_busy():
            return
        count = self._groups.undo_count(structure.version)
        title = "Undo the last edit" if count == 1 else f"Undo the last {count} edits"
        self._pending_id = self._send(Undo(count), title, structure.version)
        self._on_reply = partial(self._groups.on_undone, count)

    def redo(self, structure: Structure) -> None:
        """Request to redo what was undone last."""
        if self._shows_busy():
            return
        count = self._groups.redo_count(structure.version)
        title = "Redo the last undone edit" if count == 1 else f"Redo {count} undone edits"
        self._pending_id = self._send(Redo(count), title, structure.version)
        self._on_reply = partial(self._groups.on_redone, count)

    def discard(self, key: str) -> None:
        """Discard one staged change, or all if ``key`` is "". Sent requests are not affected."""
        self._queue = [change for change in self._queue if key and change.key != key]
        self.staging.discard(key)

    def discard_because(self, reason: str) -> None:
        """Discard everything staged, and show the reason."""
        n = len(self.staging.changes)
        self.discard("")
        self.error = f"{n} staged change{'s' if n > 1 else ''} discarded. {reason}"
        self.revision += 1

    def send_control(self, request: Command, title: str) -> None:
        """Send a request that controls the training. Its reply is shown like that of an edit."""
        self._send(request, title, None)

    def send_hyperparameter(self, request: SetHyperparameter, title: str) -> None:
        """Send a learning rate or a weight decay."""
        if self._send(request, title, None) and self.shown_reply is not None:
            key = (request.optimizer, request.group, request.name)
            self._rates[key] = (request.value, self.shown_reply)

    def send_clipping(self, request: SetGradientClipping, title: str) -> None:
        """Send how to clip the gradients."""
        if self._send(request, title, None) and self.shown_reply is not None:
            self._clipping = request, self.shown_reply

    def requested_clipping(self) -> SetGradientClipping | None:
        """Return the clipping whose request has no reply yet; None if there is none."""
        request, record = self._clipping or (None, None)
        return request if record is not None and record.state == "sent" else None

    def requested_hyperparameter(self, optimizer: int, group: int, name: str) -> float | None:
        """Return the value whose request has no reply yet; None if there is none."""
        value, record = self._rates.get((optimizer, group, name), (None, None))
        return value if record is not None and record.state == "sent" else None

    # Updates

    def update(self, state: RunState, structure: Structure) -> None:
        """Request and collect the plans of staged changes, and send the next request."""
        self._request_plans(structure)
        self._collect_plans(state)
        self.trial.update(
            self.staging.in_send_order(), structure, self._run_selection.follower.preview
        )
        self.revision += self.trial.receive(state.requests.plans)
        if self._tried is not None:
            self._send_tried(structure)
        self._send_next(state, structure)

    def _request_plans(self, structure: Structure) -> None:
        for change in self.staging.changes:
            request = change.to_request(structure)
            if not change.plan_id and not self.is_busy and request is not None:
                try:
                    follower = self._run_selection.follower
                    change.plan_id = follower.preview(request, structure.version)
                except ProtocolError as error:
                    self.error = str(error)

    def _collect_plans(self, state: RunState) -> None:
        for change in self.staging.changes:
            if change.plan is None and change.plan_id in state.requests.plans:
                change.plan = state.requests.plans[change.plan_id]
                self.revision += 1

    def _send_next(self, state: RunState, structure: Structure) -> None:
        """Send the next request once the previous one is complete."""
        if self._pending_id:
            if self._is_reply_pending(state, structure):
                return
            record = state.requests.records.get(self._pending_id)
            if record is not None and record.state == "applied":
                self._on_reply(record.version)
            self._pending_id = ""
            self.revision += 1
        if self._queue:
            change = self._queue.pop(0)
            self.staging.discard(change.key)
            request = change.to_request(structure)
            if request is not None:
                title = f"{change.verb} {change.title(structure)}"
                self._pending_id = self._send(request, title, structure.version)
                self._on_reply = self._groups.on_applied
                self.is_inserting = change.kind == "insert_layer"

    def _is_reply_pending(self, state: RunState, structure: Structure) -> bool:
        """Return whether the last request lacks its reply, or the structure it led to."""
        record = state.requests.records.get(self._pending_id)
        if record is None or time.time() - record.sent > REPLY_TIMEOUT_SECONDS:
            return False
        return record.state == "sent" or record.version > structure.version

    def _send(self, request: RequestBody, title: str, version: int | None) -> str:
        """Send a request. Return its id, or "" if it could not be sent."""
        follower = self._run_selection.follower
        if follower.state is None:
            return ""
        try:
            request_id = follower.request(request, title, version)
        except ProtocolError as error:
            self.error = str(error)
            return ""
        self.shown_reply = follower.state.requests.records[request_id]
        self.revision += 1
        return request_id
