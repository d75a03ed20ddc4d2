"""The list of requests and edits, of this viewer and of others."""

from __future__ import annotations

from revacnn_lightning.protocol.access_messages import RequestOutcome
from revacnn_lightning.protocol.messages import (
    Applied,
    Done,
    HistoryEdit,
    PlanSummary,
    Refused,
    Structure,
)
from viewer.runs import request_log
from viewer.runs.change_order import EditMark
from viewer.runs.request_log import RequestLog


def structure(version: int, step: int = 0) -> Structure:
    return Structure("run", version, step, "Net", [])


def outcome(request_id: str, state: str, time: float, version: int = -1) -> RequestOutcome:
    return RequestOutcome("run", request_id, request_id, state, time, version, version, key="ann")  # type: ignore[arg-type]


def titles(log: RequestLog) -> list[str]:
    return [change.title for change in log.requests_and_edits()]


def test_an_edit_of_another_viewer_is_listed_once_with_its_author():
    log = RequestLog()
    log.mark_edit(structure(1))
    [mark] = log.requests_and_edits()
    assert isinstance(mark, EditMark)
    log.add_outcomes([outcome("theirs", "applied", 1.0, 1)])
    [found] = log.requests_and_edits()
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


def carried_out(
    request_id: str, title: str, time: float, step: int, **fields: int
) -> RequestOutcome:
    return RequestOutcome("run", request_id, title, "done", time, step, key="ann", **fields)


def test_commands_stayed_above_later_edits(monkeypatch):
    """Such as the start of a pruning above what it has removed; they had no batch, either."""
    monkeypatch.setattr(request_log.time, "time", lambda: 100.0)
    log = RequestLog("run")
    log.add("prune", "Start pruning")
    log.receive(Done("prune", "Pruning", 20), None)
    log.add_outcomes([carried_out("prune", "Start pruning", 100.5, 20)])
    log.mark_edit(structure(1, 40), 130.0)
    log.add_outcomes([RequestOutcome("run", "removal", "Remove a filter", "applied", 130.0, 40, 1)])
    assert titles(log) == ["Remove a filter", "Start pruning"]
    assert [change.step for change in log.requests_and_edits()] == [40, 20]


def test_a_refusal_had_no_batch():
    log = RequestLog("run")
    log.add("mine", "Remove a filter")
    log.receive(Refused("mine", "no"), None)
    log.add_outcomes([RequestOutcome("run", "mine", "Remove", "refused", 5.0, 12)])
    [record] = log.requests_and_edits()
    assert (record.step, record.time) == (12, 5.0)


def test_keys_that_were_shared_after_a_resume_stood_below_it():
    log = RequestLog("resumed")
    edits = [HistoryEdit(10, "Add a filter", -1, 10.0), HistoryEdit(30, "Resumed", -1, 30.0)]
    log.add_earlier_marks(edits)
    log.add_outcomes(
        [
            RequestOutcome("before", "add", "Add a filter", "applied", 10.0, 10, 1),
            RequestOutcome("before", "early", "Share key", "done", 20.0),
            RequestOutcome("resumed", "late", "Share key · bob", "done", 40.0),
        ]
    )
    assert titles(log) == ["Share key · bob", "Resumed", "Share key", "Add a filter"]


def test_an_edit_after_a_resume_is_not_hidden_by_one_before_it():
    """Versions begin with each run."""
    log = RequestLog("resumed")
    log.add_outcomes([RequestOutcome("before", "a", "Add a filter", "applied", 10.0, 10, 1)])
    log.mark_edit(structure(1, 40), 50.0)
    log.receive(Applied("theirs", 40, 1, PlanSummary("Remove a filter")), None)
    assert titles(log) == ["Remove a filter", "Add a filter"]


def test_edits_without_a_time_are_in_the_order_of_their_batches():
    """As in the history of a run of an earlier version."""
    log = RequestLog("run")
    log.add_earlier_marks([HistoryEdit(5, "first"), HistoryEdit(25, "third")])
    log.add_outcomes([carried_out("a", "second", 50.0, 20), carried_out("b", "fourth", 60.0, 30)])
    assert titles(log) == ["fourth", "third", "second", "first"]
