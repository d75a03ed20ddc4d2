"""The list of requests and edits, of this viewer and of others."""

from __future__ import annotations

from revacnn_lightning.protocol.access_messages import RequestOutcome
from revacnn_lightning.protocol.messages import Applied, Done, PlanSummary, Structure
from viewer.runs import request_log
from viewer.runs.request_log import EditMark, RequestLog


def structure(version: int, step: int = 0) -> Structure:
    return Structure("run", version, step, "Net", [])


def outcome(request_id: str, state: str, time: float, version: int = -1) -> RequestOutcome:
    return RequestOutcome("run", request_id, request_id, state, time, version, version, key="ann")  # type: ignore[arg-type]


def titles(log: RequestLog) -> list[str]:
    return [change.title for change in log.changes()]


def test_an_edit_of_another_viewer_is_listed_once_with_its_author():
    log = RequestLog()
    log.mark_edit(structure(1))
    [mark] = log.changes()
    assert isinstance(mark, EditMark)
    log.add_outcomes([outcome("theirs", "applied", 1.0, 1)])
    [found] = log.changes()
    assert isinstance(found, RequestOutcome)
    assert found.key == "ann"


def test_what_this_viewer_has_requested_is_not_listed_again():
    log = RequestLog()
    log.add("mine", "Remove a filter")
    log.receive(Applied("mine", 3, 1, PlanSummary("Remove a filter")), structure(1))
    log.mark_edit(structure(1))
    log.add_outcomes([outcome("mine", "applied", 1.0, 1)])
    assert titles(log) == ["Remove a filter"]


def test_requests_of_all_viewers_are_in_order():
    log = RequestLog()
    log.add_outcomes([outcome("third", "refused", 3.0), outcome("first", "done", 1.0)])
    log.add_outcomes([outcome("second", "applied", 2.0, 1), outcome("first", "done", 1.0)])
    log.add("mine", "mine")  # now
    assert titles(log) == ["mine", "third", "second", "first"]


def test_outcomes_are_bounded(monkeypatch):
    monkeypatch.setattr(request_log, "MAX_OUTCOMES", 2)
    log = RequestLog()
    log.add_outcomes([outcome(str(i), "done", float(i)) for i in range(5)])
    assert titles(log) == ["4", "3"]


def test_the_kept_edits_of_a_trial_are_not_listed_as_those_of_somebody_else():
    for is_reply_first in (True, False):
        log = RequestLog()
        log.add("mine", "Keep the trial")
        if not is_reply_first:
            log.mark_edit(structure(1))
        log.receive(Done("mine", "Kept: Add a filter", 3, 1), structure(0))
        if is_reply_first:
            log.mark_edit(structure(1))
        log.add_outcomes([outcome("mine", "done", 1.0, 1)])
        assert titles(log) == ["Keep the trial"]
