"""Alerts in the list of changes."""

from __future__ import annotations

from msgspec.structs import replace

from revacnn_lightning.protocol.access_messages import RequestOutcome
from revacnn_lightning.protocol.alerts import Alert
from tests.viewer.conftest import InProcessFollower
from tests.viewer.tab.actions import deliver_replies, send_command
from viewer.components.change_list import EditsAndAlertsPanel
from viewer.runs.change_order import EditMark, RequestRecord, newest_first
from viewer.tab.tab_state import TabState


def alert(step: int, time: float = 0.0) -> Alert:
    return Alert("nonfinite_loss", step, f"The loss is nan at batch {step}.", "", time)


def receive(follower: InProcessFollower, *alerts: Alert) -> None:
    assert follower.state is not None
    follower.state.receive(replace(follower.training.status(), alerts=list(alerts)))


def test_alerts_were_missing_among_the_changes(tab: TabState, follower: InProcessFollower) -> None:
    panel = EditsAndAlertsPanel(tab)
    panel.update()
    receive(follower, alert(7))
    assert panel.update() is True
    assert panel.update() is False
    [record] = panel.source.data["records"]
    assert record["state"] == "alert"
    assert record["title"] == "Alert: loss not finite"
    assert record["text"] == "The loss is nan at batch 7."


def test_alerts_that_the_status_no_longer_holds_stay_in_the_list(
    tab: TabState, follower: InProcessFollower
) -> None:
    receive(follower, alert(7), alert(9))
    receive(follower, alert(9), alert(11))
    texts = [record["text"] for record in EditsAndAlertsPanel(tab).content()["records"]]
    assert texts == [f"The loss is nan at batch {step}." for step in (11, 9, 7)]


def test_an_alert_after_an_edit_comes_before_it(tab: TabState, follower: InProcessFollower) -> None:
    send_command(tab, "stage_add", layer=1)
    deliver_replies(tab, follower)
    send_command(tab, "apply_staged")
    deliver_replies(tab, follower)
    assert follower.state is not None
    [edit] = follower.state.requests.records.values()
    receive(follower, alert(edit.step - 1), alert(edit.step))
    records = EditsAndAlertsPanel(tab).content()["records"]
    assert [record["state"] for record in records] == ["alert", "applied", "alert"]


def test_alerts_and_changes_are_in_the_order_of_time() -> None:
    refused = RequestRecord("a", "Remove", sent=50.0, state="refused")
    marks = [EditMark(30, 2), EditMark(10, 1)]
    early, middle, late = alert(5, 10.0), alert(20, 40.0), alert(40, 60.0)
    found = newest_first([*reversed([refused, *marks]), early, middle, late])
    assert found == [late, refused, marks[0], middle, marks[1], early]


def test_alerts_and_requests_of_others_are_in_the_order_of_time() -> None:
    refused = RequestOutcome("run", "a", "Stop", "refused", 50.0)
    applied = RequestOutcome("run", "b", "Remove", "applied", 10.0, step=10)
    early, late = alert(5, time=5.0), alert(20, time=60.0)
    assert newest_first([applied, refused, early, late]) == [late, refused, applied, early]
