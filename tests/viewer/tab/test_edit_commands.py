"""Commands that send requests to the run."""

from __future__ import annotations

import pytest

from revacnn_lightning.protocol.requests import (
    Command,
    ControlRun,
    ScaleLearningRate,
    StartRecording,
    StopRecording,
    Undo,
)
from tests.viewer.conftest import InProcessFollower
from tests.viewer.tab.actions import send_command
from viewer.tab.tab_state import TabState


@pytest.mark.parametrize(
    ("arguments", "request_body", "title"),
    [
        ({"action": "pause"}, ControlRun("pause"), "Pause"),
        ({"action": "step"}, ControlRun("step"), "Train one batch"),
        (
            {"action": "step", "batches": 2500},
            ControlRun("step", batches=2500),
            "Train 2\u202f500 batches",
        ),
        ({"action": "finish_epoch"}, ControlRun("finish_epoch"), "Train to the end of the epoch"),
        ({"action": "record"}, StartRecording(), "Record the run"),
        ({"action": "stop_recording"}, StopRecording(), "End the recording"),
    ],
)
def test_the_run_is_controlled(
    tab: TabState,
    follower: InProcessFollower,
    arguments: dict[str, object],
    request_body: Command,
    title: str,
) -> None:
    send_command(tab, "control_run", **arguments)
    assert follower.requests[-1].body == request_body
    reply = tab.edit_queue.shown_reply
    assert reply is not None
    assert reply.title == title


@pytest.mark.parametrize("batches", [0, -3, 10**7, "many"])
def test_an_invalid_number_of_batches_is_not_sent(
    tab: TabState, follower: InProcessFollower, batches: object
) -> None:
    send_command(tab, "control_run", action="step", batches=batches)
    assert not any(isinstance(request.body, ControlRun) for request in follower.requests)


@pytest.mark.parametrize(
    ("command", "arguments", "reason"),
    [
        ("apply_staged", {}, "Nothing is staged."),
        ("try_staged", {}, "Nothing is staged."),
        ("toggle_staged_merge", {}, "Select two or more filters"),
        (
            "stage_remove_cheapest_in_network",
            {"count": 3},
            "prices of the filters have not arrived",
        ),
        ("stage_remedy", {"layer": 0, "ids": [9999], "option": "reinitialize"}, "no longer exist"),
        ("close_block", {}, "in no open block"),
        ("open_block", {}, "in no closed block"),
    ],
)
def test_a_command_had_no_effect_and_did_not_say_why(
    tab: TabState, command: str, arguments: dict[str, object], reason: str
) -> None:
    send_command(tab, command, **arguments)
    assert reason in tab.edit_queue.error


def test_a_second_undo_was_lost_without_a_word_while_the_first_had_no_reply(
    tab: TabState, follower: InProcessFollower
) -> None:
    send_command(tab, "undo")
    assert tab.edit_queue.error == ""
    send_command(tab, "undo")
    assert "no reply yet" in tab.edit_queue.error
    assert sum(isinstance(request.body, Undo) for request in follower.requests) == 1


def test_the_rate_of_a_layer_is_set_back_where_it_was_staged(tab: TabState) -> None:
    assert tab.structure is not None
    name = tab.structure.layers[1].name
    send_command(tab, "stage_layer_rate", layer=1, value=0.3)
    (change,) = tab.staging.changes
    assert change.to_edit(tab.structure) == ScaleLearningRate(name, 0.3)
    send_command(tab, "stage_layer_rate", layer=1, value=1.0)  # what the layer has
    assert tab.staging.changes == []
    send_command(tab, "stage_layer_rate", layer=1, value=1.0)
    assert tab.edit_queue.error == f"{name} trains at 1 × the rate already."
