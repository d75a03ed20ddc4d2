"""Requests sent to the training, the replies to them, and where edits changed the network."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from msgspec import Struct

from revacnn_lightning.protocol.access_messages import RequestOutcome
from revacnn_lightning.protocol.messages import (
    Applied,
    Done,
    HistoryEdit,
    Planned,
    PlanSummary,
    Refused,
    Reply,
    Structure,
)

from ..rendering.formatting import count_of

__all__ = ["EditMark", "RequestLog", "RequestRecord", "insert_by_age"]

T = TypeVar("T")

MAX_RECORDS = 64
MAX_PLANS = 256
MAX_MARKS = 256
MAX_OUTCOMES = 256
REPLY_SECONDS = 5.0  # within which the reply to an edit follows the structure it led to


class EditMark(Struct, frozen=True):
    """A step at which the network changed, shown on the time axes."""

    step: int
    version: int
    title: str = ""  # the edit; "" if it is unknown


class RequestRecord(Struct):
    """A request and its outcome.

    Attributes:
        sent: Unix time.
        state: ``sent``, ``applied``, ``done`` or ``refused``.
        step: at which the edit was applied.
        version: of the structure that the request resulted in; 0 if it changed none.
        layers: whose width the edit changed.
        text: the new widths, or the reason for the refusal.
        plan: of an applied edit.
        output_change: relative change of the model's output on the batch before the edit.
        is_trial: whether the reply only says that a trial of edits has started.
    """

    id: str
    title: str
    sent: float
    state: str = "sent"
    step: int = 0
    version: int = 0
    layers: list[str] = []
    text: str = ""
    plan: PlanSummary | None = None
    output_change: float | None = None
    is_trial: bool = False


def _key(edit: EditMark | HistoryEdit) -> tuple[object, ...]:
    """Return what identifies an edit: its version, unless it is that of a run before a resume."""
    return (edit.version,) if edit.version >= 0 else (edit.version, edit.step, edit.title)


class RequestLog:
    """The most recent requests, previewed plans and edits of one run.

    Attributes:
        records: requests by id, oldest first.
        plans: replies to previews by request id, oldest first.
        edit_marks: changes of the network, oldest first.
        outcomes: of the requests of all viewers and of the training script, by id, oldest first.
        revision: incremented with every change.
    """

    def __init__(self) -> None:
        self.records: OrderedDict[str, RequestRecord] = OrderedDict()
        self.plans: OrderedDict[str, Planned | Refused] = OrderedDict()
        self.edit_marks: deque[EditMark] = deque(maxlen=MAX_MARKS)
        self.outcomes: OrderedDict[str, RequestOutcome] = OrderedDict()
        self.revision = 0

    def add(self, request_id: str, title: str) -> None:
        """Add a request that was sent. Its reply completes the record."""
        self.records[request_id] = RequestRecord(request_id, title, time.time())
        while len(self.records) > MAX_RECORDS:
            self.records.popitem(last=False)
        self.revision += 1

    def receive(self, reply: Reply, structure: Structure | None) -> None:
        """Complete the request's record, or store the plan of a preview.

        Args:
            structure: the current one, which may already include the edit.
        """
        self.revision += 1
        record = self.records.get(reply.id)
        if record is None:
            if isinstance(reply, Planned | Refused):
                self.plans[reply.id] = reply
                while len(self.plans) > MAX_PLANS:
                    self.plans.popitem(last=False)
            elif isinstance(reply, Applied):  # an edit of others, in a recording
                self._set_mark_title(reply.version, reply.plan.title)
        elif isinstance(reply, Applied):
            record.state, record.step = "applied", reply.step
            record.version, record.title = reply.version, reply.plan.title or record.title
            record.plan, record.output_change = reply.plan, reply.output_change
            record.layers = list(dict.fromkeys(part.layer for part in reply.plan.filter_changes))
            self._set_mark_title(record.version, record.title)
            if structure is not None:
                self._set_width_texts(structure)
        elif isinstance(reply, Done):
            record.state, record.text = "done", reply.detail
            if reply.version >= 0:  # it has kept the edits of a trial
                record.step, record.version = reply.step, reply.version
                self._set_mark_title(reply.version, reply.detail)
        elif isinstance(reply, Refused):
            record.state, record.text = "refused", reply.reason

    def mark_edit(self, structure: Structure) -> None:
        """Add a mark for an edit that resulted in this structure."""
        titles = {one.version: one.title for one in self.records.values() if one.version}
        title = titles.get(structure.version, "")
        self.edit_marks.append(EditMark(structure.step, structure.version, title))
        self._set_width_texts(structure)

    def add_earlier_marks(self, edits: Sequence[HistoryEdit]) -> None:
        """Add marks of edits that the run remembers, and titles to those that are marked."""
        marks = {_key(mark): mark for mark in self.edit_marks}
        for edit in edits:
            known = marks.get(_key(edit), EditMark(edit.step, edit.version))
            marks[_key(edit)] = EditMark(known.step, known.version, known.title or edit.title)
        merged = sorted(marks.values(), key=lambda mark: mark.step)
        self.edit_marks = deque(merged, maxlen=MAX_MARKS)
        self.revision += 1

    def add_outcomes(self, outcomes: Sequence[RequestOutcome]) -> None:
        """Add what the run says about requests: live, or those before this viewer attached."""
        new = [one for one in outcomes if one.id not in self.outcomes]
        merged = sorted([*self.outcomes.values(), *new], key=lambda one: one.time)
        self.outcomes = OrderedDict((one.id, one) for one in merged[-MAX_OUTCOMES:])
        self.revision += 1

    @property
    def is_reply_due(self) -> bool:
        """Whether the newest change may be that of a request whose reply is still to come."""
        now = time.time()
        records = self.records.values()
        return any(one.state == "sent" and now - one.sent < REPLY_SECONDS for one in records)

    def changes(self) -> list[RequestRecord | RequestOutcome | EditMark]:
        """Return all requests of this and of other viewers, and other edits, newest first."""
        outcomes = [one for one in self.outcomes.values() if one.id not in self.records]
        known = {one.version: one for one in outcomes if one.version >= 0}
        found: list[RequestRecord | RequestOutcome | EditMark] = [
            known.get(one.version, one) if isinstance(one, EditMark) else one
            for one in self._records_and_marks()
        ]
        shown = {one.id for one in found if isinstance(one, RequestOutcome)}
        for outcome in outcomes:  # oldest first
            if outcome.id not in shown:
                insert_by_age(found, outcome, partial(_is_older, outcome=outcome))
        return found

    def _records_and_marks(self) -> list[RequestRecord | EditMark]:
        """Return the requests of this viewer and the marks of all other edits, newest first."""
        records = list(reversed(self.records.values()))
        own = {record.version for record in records if record.version}
        others = [mark for mark in self.edit_marks if mark.version not in own]
        if self.is_reply_due:
            others = [mark for mark in others if mark.version < max(own, default=0)]
        found: list[RequestRecord | EditMark] = []
        for record in records:
            while record.version and others and others[-1].version > record.version:
                found.append(others.pop())
            found.append(record)
        return [*found, *reversed(others)]

    def _set_mark_title(self, version: int, title: str) -> None:
        """Title the mark of an edit, for a reply that arrives after the structure."""
        for i, mark in enumerate(self.edit_marks):
            if mark.version == version:
                self.edit_marks[i] = EditMark(mark.step, mark.version, title)

    def _set_width_texts(self, structure: Structure) -> None:
        """Describe the new widths in the records of applied edits."""
        widths = {layer.name: len(layer.filter_ids) for layer in structure.layers}
        for record in self.records.values():
            is_in_structure = record.state == "applied" and record.version <= structure.version
            if is_in_structure and not record.text:
                record.text = ", ".join(
                    f"{name}: {count_of(widths[name], 'filter')}"
                    for name in record.layers
                    if name in widths
                )
                self.revision += 1


def insert_by_age(changes: list[T], new: T, is_older: Callable[[T], bool]) -> None:
    """Insert a change before the first that is older, so that the newest ones stay in front."""
    older = (i for i, change in enumerate(changes) if is_older(change))
    changes.insert(next(older, len(changes)), new)


def _is_older(change: RequestRecord | RequestOutcome | EditMark, outcome: RequestOutcome) -> bool:
    """Return whether a change happened before the one of this outcome."""
    if isinstance(change, EditMark):
        return 0 <= change.version <= outcome.version or 0 <= change.step <= outcome.step
    return (change.sent if isinstance(change, RequestRecord) else change.time) <= outcome.time
