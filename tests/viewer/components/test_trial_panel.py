"""A trial of staged changes, as the page shows it and decides about it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from revacnn_lightning.protocol.requests import DiscardTrial, KeepTrial, RemoveFilters, TryEdits
from revacnn_lightning.protocol.trial_state import TrialState
from tests.viewer.conftest import InProcessFollower
from tests.viewer.tab.actions import send_command
from viewer.components.change_list import EditsAndAlertsPanel, ReplyPanel
from viewer.components.staging_bar import StagingBar
from viewer.components.trial_panel import CurrentTrialPanel
from viewer.tab.tab_state import TabState

RECORDING = TrialState("recording", "r", ["Remove conv2 · filter 3"], 7, 20, done=4)


def deliver(tab: TabState, follower: InProcessFollower) -> None:
    """Receive the replies, and those to what they lead to."""
    for _ in range(3):
        follower.deliver()
        tab.update()


def show(tab: TabState, trial: TrialState) -> dict[str, Any]:
    """Return what the panel shows of a trial."""
    assert tab.state is not None
    assert tab.state.status is not None
    tab.state.status = replace(tab.state.status, trial=trial)
    return CurrentTrialPanel(tab).content()


def test_the_cost_is_said_before(tab: TabState, follower: InProcessFollower) -> None:
    send_command(tab, "toggle_staged_removal")
    bar = StagingBar(tab)
    assert not bar.content()["can_try"]
    assert "has not replied" in bar.content()["try_hint"]
    deliver(tab, follower)
    shown = bar.content()
    assert shown["can_try"]
    assert shown["try_cost"] == "the training waits for at most about 3.2 s; takes 12 MB of memory"
    assert shown["try_short_cost"] == "≤ 3.2 s · 12 MB"
    assert shown["try_batches"] == 20
    send_command(tab, "set_trial_batches", batches=5)
    tab.update()
    shown = bar.content()  # a disabled button would not receive what is pressed now
    assert (shown["can_try"], shown["try_cost"]) == (True, "")
    deliver(tab, follower)
    assert (bar.content()["try_cost"], bar.content()["try_batches"]) != ("", 20)


def test_all_staged_changes_are_tried_together(tab: TabState, follower: InProcessFollower) -> None:
    send_command(tab, "toggle_staged_removal")
    send_command(tab, "stage_add", layer=1)
    deliver(tab, follower)
    send_command(tab, "try_staged")
    body = follower.requests[-1].body
    assert isinstance(body, TryEdits)
    assert isinstance(body.edits[0], RemoveFilters)
    assert (len(body.edits), body.batches, follower.requests[-1].dry_run) == (2, 20, False)
    assert not StagingBar(tab).content()["rows"]
    deliver(tab, follower)
    shown = CurrentTrialPanel(tab).content()
    assert shown["stage"] == "undecided"
    assert shown["text"].startswith("Loss −0.0120 (95 % interval −0.0201 to −0.00390)")
    assert len(shown["losses"]) == len(shown["edited_losses"]) == 20


def test_a_trial_that_had_begun_was_called_done(tab: TabState, follower: InProcessFollower) -> None:
    send_command(tab, "toggle_staged_removal")
    deliver(tab, follower)
    send_command(tab, "try_staged")
    deliver(tab, follower)
    assert ReplyPanel(tab).content() == {}  # the trial has a bar of its own
    [record] = EditsAndAlertsPanel(tab).content()["records"]
    assert record["title"].startswith("Trial on 20 batches: Remove ")
    assert record["state"] == "done"
    assert record["text"] == "started on the next 20 batches"


def trials(follower: InProcessFollower) -> list[int]:
    """Return the batches of each trial that was requested."""
    bodies = [request.body for request in follower.requests if not request.dry_run]
    return [body.batches for body in bodies if isinstance(body, TryEdits)]


def test_a_trial_was_lost_if_its_cost_was_not_known_yet(
    tab: TabState, follower: InProcessFollower
) -> None:
    """Try was pressed right after another number of batches was typed."""
    send_command(tab, "toggle_staged_removal")
    deliver(tab, follower)
    send_command(tab, "set_trial_batches", batches=6)
    tab.update()  # requests the new cost
    send_command(tab, "try_staged")
    assert trials(follower) == []
    assert "as soon as its cost is known" in tab.edit_queue.error
    deliver(tab, follower)
    assert trials(follower) == [6]
    assert tab.edit_queue.error == ""
    assert not StagingBar(tab).content()["rows"]


def test_a_trial_waits_for_its_own_cost_and_not_after_another_change(
    tab: TabState, follower: InProcessFollower
) -> None:
    send_command(tab, "toggle_staged_removal")
    deliver(tab, follower)
    send_command(tab, "set_trial_batches", batches=6)
    send_command(tab, "try_staged")
    assert trials(follower) == []  # the known cost is that of 20 batches
    send_command(tab, "set_trial_batches", batches=7)
    deliver(tab, follower)
    assert trials(follower) == []
    assert tab.edit_queue.error == ""


@pytest.mark.parametrize(
    ("command", "body"), [("keep_trial", KeepTrial()), ("discard_trial", DiscardTrial())]
)
def test_the_page_sends_the_decision(
    tab: TabState, follower: InProcessFollower, command: str, body: object
) -> None:
    assert show(tab, replace(RECORDING, stage="undecided"))["stage"] == "undecided"
    send_command(tab, command)
    assert follower.requests[-1].body == body


def test_nothing_is_applied_while_a_trial_is_under_way(
    tab: TabState, follower: InProcessFollower
) -> None:
    send_command(tab, "toggle_staged_removal")
    deliver(tab, follower)
    show(tab, RECORDING)
    shown = StagingBar(tab).content()
    assert not shown["can_apply"]
    assert not shown["can_try"]
    assert "keep or discard" in shown["apply_hint"]


def test_progress_and_failure_are_shown(tab: TabState) -> None:
    shown = show(tab, RECORDING)
    assert (shown["text"], shown["progress"]) == ("Training batch 5 of 20", 4 / 60)
    shown = show(tab, replace(RECORDING, stage="training", done=10))
    assert shown["text"] == "Training both networks again: step 10 of 40"
    assert shown["progress"] == 0.5
    shown = show(tab, replace(RECORDING, stage="failed", note="it was too large"))
    assert shown["text"] == "The trial has ended without a result: it was too large"
    assert show(tab, replace(RECORDING, stage="kept"))["stage"] == "none"


def test_what_cannot_be_tried_is_said(tab: TabState, follower: InProcessFollower) -> None:
    send_command(tab, "stage_add", layer=0)
    tab.staging.changes[0].is_directed = True
    deliver(tab, follower)
    shown = StagingBar(tab).content()
    assert not shown["can_try"]
    assert "where it helps most" in shown["try_hint"]
