"""From staged to applied: plans are asked for, requests go out one by one, replies come back."""

from __future__ import annotations

import time

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.messages import Refused, Structure
from revacnn_lightning.protocol.requests import Command, Edit, Undo

from ..runs.request_log import RequestRecord
from ..runs.run_state import RunState
from .run_selection import RunSelection
from .staging import StagedChange, Staging

__all__ = ["EditQueue"]

PATIENCE_SECONDS = 60.0  # a reply that takes longer no longer holds up the next request


class EditQueue:
    """The requests of one tab. ``touched`` is counted up with every change that may be shown."""

    def __init__(self, choice: RunSelection, staging: Staging) -> None:
        self._choice = choice
        self.staging = staging
        self.touched = 0
        self.reply: RequestRecord | None = None  # shown above the staging bar until dismissed
        self.error = ""  # why the last action could not even be sent
        self._queue: list[StagedChange] = []
        self._waiting = ""  # id of the request whose reply is awaited

    @property
    def busy(self) -> bool:
        """Whether an Apply is under way."""
        return bool(self._queue or self._waiting)

    @property
    def reply_age(self) -> float:
        """Seconds since the request of the shown reply was sent."""
        return 0.0 if self.reply is None else time.time() - self.reply.sent

    def may_apply(self) -> bool:
        """Whether Apply would do something that is not known to be refused."""
        rows = self.staging.rows
        return bool(rows) and not any(isinstance(row.plan, Refused) for row in rows)

    def forget(self) -> None:
        """Another run: nothing is staged, awaited or shown any more."""
        self.staging.unstage()
        self._queue, self._waiting, self.reply = [], "", None

    # What the buttons ask for

    def apply(self) -> None:
        """Send everything that is staged, in order, each after the reply to the one before."""
        if not self.busy and self.may_apply():
            self._queue = self.staging.in_order()

    def undo(self, structure: Structure) -> None:
        """Take the last edit of the network back."""
        if not self.busy:
            self._send(StagedChange("", "undo"), structure)

    def unstage(self, key: str) -> None:
        """Forget one row, or all; what is sent already cannot be taken back so."""
        self._queue = [row for row in self._queue if key and row.key != key]
        self.staging.unstage(key)

    def order(self, request: Command, title: str) -> None:
        """Send what is not an edit of the network; its reply is shown like one of those."""
        self._request(request, title, None)

    # Following the run

    def update(self, state: RunState, structure: Structure) -> None:
        """Ask for the plans of what is staged, take those that came, send what is next."""
        self._ask_plans(structure)
        self._take_plans(state)
        self._go_on(state, structure)

    def _ask_plans(self, structure: Structure) -> None:
        for row in self.staging.rows:
            edit = row.edit(structure)
            if not row.plan_id and not self.busy and edit is not None:
                try:
                    row.plan_id = self._choice.follower.preview(edit, structure.version)
                except ProtocolError as error:
                    self.error = str(error)

    def _take_plans(self, state: RunState) -> None:
        for row in self.staging.rows:
            if row.plan is None and row.plan_id in state.requests.plans:
                row.plan = state.requests.plans[row.plan_id]
                self.touched += 1

    def _go_on(self, state: RunState, structure: Structure) -> None:
        """Send the next request once the one before is answered and its structure is known."""
        if self._waiting:
            record = state.requests.records.get(self._waiting)
            lost = record is None or time.time() - record.sent > PATIENCE_SECONDS
            if record is not None and record.state == "sent" and not lost:
                return
            if record is not None and record.version > structure.version and not lost:
                return
            self._waiting = ""
            self.touched += 1
        if self._queue:
            row = self._queue.pop(0)
            self.staging.unstage(row.key)
            self._send(row, structure)

    def _send(self, row: StagedChange, structure: Structure) -> None:
        edit = Undo() if row.kind == "undo" else row.edit(structure)
        if edit is None:
            return
        title = "Undo the last edit" if row.kind == "undo" else f"{row.verb} {row.title(structure)}"
        self._waiting = self._request(edit, title, structure.version)

    def _request(self, request: Command | Edit | Undo, title: str, version: int | None) -> str:
        """Send a request; its id, or "" where it could not be sent."""
        state = self._choice.follower.state
        if state is None:
            return ""
        try:
            request_id = self._choice.follower.request(request, title, version)
        except ProtocolError as error:
            self.error = str(error)
            return ""
        self.reply = state.requests.records[request_id]
        self.touched += 1
        return request_id
