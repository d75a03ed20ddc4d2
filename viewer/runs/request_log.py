"""Requests sent to the training, the replies to them, and where edits changed the network."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Sequence

from msgspec.structs import replace

from revacnn_lightning.protocol.access_messages import RequestOutcome
from revacnn_lightning.protocol.messages import (
    Applied,
    Done,
    HistoryEdit,
    Planned,
    Refused,
    Reply,
    Structure,
)

from ..rendering.formatting import count_of
from .change_order import Change, EditMark, RequestRecord, newest_first

__all__ = ["RequestLog"]

MAX_RECORDS = 64
MAX_PLANS = 256
MAX_MARKS = 256
MAX_OUTCOMES = 256
REPLY_SECONDS = 5.0  # within which the reply to an edit follows the structure it led to


def _key(edit: EditMark | HistoryEdit) -> tuple[object, ...]:
    """Return what identifies an edit: its version, unless it is that of a run before a resume."""
    return (edit.version,) if edit.version >= 0 else (edit.version, edit.step, edit.title)


class RequestLog:
    """The most recent requests, previewed plans and edits of one run.

    Args:
        run_id: the id of the run. An earlier run, which it resumes, has other structure versions.

    Attributes:
        records: requests by id, oldest first.
        plans: replies to previews by request id, oldest first.
        edit_marks: changes of the network, oldest first.
        outcomes: by id, the outcomes of the requests of all viewers and of the training script,
            oldest first.
        revision: incremented with every change.
    """

    def __init__(self, run_id: str = "") -> None:
        self._run = run_id
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
            record.state, record.text, record.step = "done", reply.detail, reply.step
            if reply.version >= 0:  # it has kept the edits of a trial
                record.version = reply.version
                self._set_mark_title(reply.version, reply.detail)
        elif isinstance(reply, Refused):
            record.state, record.text = "refused", reply.reason

    def mark_edit(self, structure: Structure, unix_time: float = 0.0) -> None:
        """Add a mark for an edit that resulted in this structure, at a Unix time; 0: unknown."""
        titles = {one.version: one.title for one in self.records.values() if one.version}
        title = titles.get(structure.version, "")
        self.edit_marks.append(EditMark(structure.step, structure.version, title, unix_time))
        self._set_width_texts(structure)

    def add_earlier_marks(self, edits: Sequence[HistoryEdit]) -> None:
        """Add marks of edits that the run remembers, and titles to those that are marked."""
        marks = {_key(mark): mark for mark in self.edit_marks}
        for edit in edits:
            known = marks.get(_key(edit), EditMark(edit.step, edit.version))
            title, moment = known.title or edit.title, edit.time or known.time
            marks[_key(edit)] = EditMark(known.step, known.version, title, moment)
        merged = sorted(marks.values(), key=lambda mark: mark.step)
        self.edit_marks = deque(merged, maxlen=MAX_MARKS)
        self.revision += 1

    def add_outcomes(self, outcomes: Sequence[RequestOutcome]) -> None:
        """Add what the run says about requests: live, or those before this viewer attached."""
        new = [one for one in outcomes if one.id not in self.outcomes]
        merged = sorted([*self.outcomes.values(), *new], key=lambda one: one.time)
        self.outcomes = OrderedDict((one.id, one) for one in merged[-MAX_OUTCOMES:])
        for outcome in new:
            record = self.records.get(outcome.id)
            if record is not None:
                record.time = outcome.time
                record.step = outcome.step if outcome.step >= 0 else record.step
        self.revision += 1

    @property
    def is_reply_pending(self) -> bool:
        """Whether the newest change may be that of a request whose reply is still to come."""
        now = time.time()
        records = self.records.values()
        return any(one.state == "sent" and now - one.sent < REPLY_SECONDS for one in records)

    def requests_and_edits(self) -> list[Change]:
        """Return all requests of this and of other viewers, and other edits, newest first."""
        outcomes = [one for one in self.outcomes.values() if one.id not in self.records]
        edits = [one for one in outcomes if one.version >= 0]
        by_others = {one.version for one in edits if one.run == self._run or not self._run}
        before_resume = {(one.step, one.title) for one in edits}
        own = {record.version for record in self.records.values() if record.version}
        marks = [
            mark
            for mark in self.edit_marks
            if mark.version not in own | by_others
            and (mark.version >= 0 or (mark.step, mark.title) not in before_resume)
        ]
        if self.is_reply_pending:  # the newest edit may be that of the request
            marks = [mark for mark in marks if mark.version < max(own, default=0)]
        return newest_first([*marks, *outcomes, *self.records.values()])

    def _set_mark_title(self, version: int, title: str) -> None:
        """Title the mark of an edit, for a reply that arrives after the structure."""
        for i, mark in enumerate(self.edit_marks):
            if mark.version == version:
                self.edit_marks[i] = replace(mark, title=title)

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
