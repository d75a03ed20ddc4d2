"""A run as scripts and notebooks use it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from revacnn_lightning import ControlRun, LayerDetail, RequestTimeoutError, RunEndedError
from revacnn_lightning.client import unread_messages
from revacnn_lightning.protocol.inspections import FilterFeaturesAndImages
from revacnn_lightning.protocol.messages import Applied, Done, PlanSummary, Reply, Request, Status
from revacnn_lightning.protocol.requests import (
    KeepTrial,
    Redo,
    SetGradientClipping,
    SetHyperparameter,
    StartRecording,
    StopRecording,
    Undo,
)
from tests.client.simulated_run import SimulatedRun, snapshot, status, structure


def test_waits_for_a_condition_and_returns_its_result(training: SimulatedRun):
    training.publish(structure(), snapshot(0), snapshot(1), snapshot(2))
    found = training.run.wait_for(lambda run: run.batch if run.batch and run.batch.step else None)
    assert found.step == 1  # no batch is skipped
    assert [batch.step for batch in take(training, 3)] == [0, 1, 2]


def take(training: SimulatedRun, count: int) -> list:
    batches = iter(training.run.batches(timeout=60))
    return [next(batches) for _ in range(count)]


def test_waiting_ends_immediately_when_the_run_has_ended(training: SimulatedRun):
    training.end("failed", "out of memory")
    with pytest.raises(RunEndedError, match="out of memory"):
        training.run.wait_for(lambda run: run.batch)


def test_the_state_at_the_end_of_a_run_still_counts(training: SimulatedRun):
    training.end("finished")
    assert training.run.wait_for(lambda run: run.status.state == "finished")


def test_waiting_ends_after_its_timeout(training: SimulatedRun):
    with pytest.raises(RequestTimeoutError, match=r"has not reached the condition within 0\.05 s"):
        training.run.wait_for(lambda run: False, timeout=0.05)


@pytest.mark.parametrize(
    ("use", "body", "reply"),
    [
        (lambda run: run.pause(), ControlRun("pause"), Done),
        (lambda run: run.resume(), ControlRun("resume"), Done),
        (lambda run: run.save_checkpoint(), ControlRun("checkpoint"), Done),
        (lambda run: run.stop(), ControlRun("stop"), Done),
        (lambda run: run.start_recording("a"), StartRecording("a"), Done),
        (lambda run: run.stop_recording(), StopRecording(), Done),
        (lambda run: run.undo(2), Undo(2), Applied),
        (lambda run: run.redo(), Redo(), Applied),
        (
            lambda run: run.set_learning_rate(0.5, group=1),
            SetHyperparameter(0, 1, "lr", 0.5),
            Done,
        ),
        (
            lambda run: run.set_weight_decay(0.1),
            SetHyperparameter(0, 0, "weight_decay", 0.1),
            Done,
        ),
        (
            lambda run: run.set_gradient_clipping(0.5, "value"),
            SetGradientClipping(0.5, "value"),
            Done,
        ),
    ],
)
def test_each_command_sends_its_request(
    training: SimulatedRun, use: Callable, body: object, reply: type
):
    def make(request: Request) -> Reply:
        if reply is Done:
            return Done(request.id, "done")
        return Applied(request.id, 0, 0, PlanSummary("Undo"))

    with ThreadPoolExecutor(1) as executor:  # the server, while the client waits
        request = executor.submit(training.reply, make)
        use(training.run)
        assert request.result().body == body


def test_a_status_from_before_the_command_is_not_its_pause(training: SimulatedRun):
    """The reply may overtake the status that was published before it."""

    def make(request: Request) -> Reply:
        training.publish(Status("run", "paused", 7, 0, 0.0))
        return Done(request.id, "", 7)

    def reply() -> None:
        assert training.reply(make).body == ControlRun("step", batches=5)
        time.sleep(0.2)
        training.publish(Status("run", "paused", 12, 0, 0.0))

    with ThreadPoolExecutor(1) as executor:
        executor.submit(reply)
        assert training.run.train(5) == 12


def test_the_structure_was_the_old_one_when_a_kept_trial_was_replied_to(training: SimulatedRun):
    """The structure may arrive after the reply, on the other socket."""
    training.publish(structure())

    def reply() -> None:
        request = training.reply(lambda request: Done(request.id, "Kept: Add filter", 7, 1))
        assert request.body == KeepTrial()
        time.sleep(0.2)
        training.publish(structure(1))

    with ThreadPoolExecutor(1) as executor:
        executor.submit(reply)
        assert training.run.command(KeepTrial()) == "Kept: Add filter"
        assert training.run.structure is not None
        assert training.run.structure.version == 1


def test_a_paused_run_has_a_figure_without_statistics(training: SimulatedRun):
    """No batch arrives during a pause."""
    training.publish(structure(), status("paused"))
    assert "Net" in training.run.figure(timeout=60).svg


def test_a_detail_that_arrives_before_the_reply_is_returned(training: SimulatedRun):
    """The two messages take different ways, and a paused run sends a detail only once."""
    empty = FilterFeaturesAndImages(np.zeros(0), np.zeros(0))
    detail = LayerDetail("run", 0, 7, "a", empty, empty, empty, empty, np.zeros(0))

    def make(request: Request) -> Reply:
        training.publish(detail)
        time.sleep(0.2)
        return Done(request.id)

    with ThreadPoolExecutor(1) as executor:
        executor.submit(training.reply, make)
        assert training.run.detail("a").step == 7


def test_unread_telemetry_of_a_large_network_is_bounded_in_bytes(
    training: SimulatedRun, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(unread_messages, "MAX_UNREAD_BYTES", 3 * snapshot(0).values.nbytes)
    training.publish(structure(), *map(snapshot, range(10)), status("finished"))
    training.until(lambda: (training.run.take(lambda _: False), training.run.has_ended())[1])
    assert [batch.step for batch in training.run.batches()] == [7, 8, 9]


def test_the_text_of_a_run_says_what_it_does(training: SimulatedRun):
    assert repr(training.run) == "<Run run of run: training, batch 7>"


def test_no_thread_is_started(training: SimulatedRun):
    before = threading.active_count()
    training.publish(structure(), snapshot(0), status("finished"))
    list(training.run.batches())
    assert threading.active_count() == before
