"""The messages of a run, and what is known from them."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest
from msgspec.structs import replace

from benchmarks.network_cut import CuttableNetwork
from revacnn_lightning import AddFilters, attach
from revacnn_lightning.client import run_messages
from revacnn_lightning.client.run import Run
from revacnn_lightning.errors import KeyRefusedError, ProtocolError
from revacnn_lightning.protocol import base_socket
from revacnn_lightning.protocol.messages import Request
from revacnn_lightning.protocol.requests import ControlRun
from revacnn_lightning.protocol.viewer_sockets import Requester
from tests.client.simulated_run import SimulatedRun, snapshot, status, structure


def test_a_closed_client_failed_with_an_error_of_zeromq(training: SimulatedRun):
    training.run.close()
    for request in (
        lambda: training.run.plan(AddFilters("a")),
        training.run.poll,
        training.run.undo,
    ):
        with pytest.raises(ProtocolError, match="is closed; attach again"):
            request()
    training.run.close()


def test_a_request_before_the_end_of_a_script_was_lost(training: SimulatedRun):
    """The client closes before the run has admitted its key."""
    with CuttableNetwork(training.connection) as network:
        network.cut()
        restoring = threading.Timer(0.2, network.restore)
        with Run(network.connection) as run:
            sent = run.request(ControlRun("stop"))
            restoring.start()
        restoring.join()
        received: list[Request] = []

        def has_arrived() -> bool:
            received.extend(request for _, request in training.server.receive())
            return sent in {request.id for request in received}

        training.until(has_arrived)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notice a cut soon."""
    monkeypatch.setattr(base_socket, "HEARTBEAT_MS", 50)
    monkeypatch.setattr(base_socket, "HEARTBEAT_TIMEOUT_MS", 150)
    monkeypatch.setattr(base_socket, "RECONNECT_MAX_MS", 100)


@pytest.mark.usefixtures("impatient")
def test_a_client_knows_that_the_network_is_cut_and_catches_up_afterwards(training: SimulatedRun):
    with CuttableNetwork(training.connection) as network, closing(Run(network.connection)) as run:
        client, state_request = training.receive()
        assert state_request.body == ControlRun("send_state")
        training.server.reply(client, status("training"))
        training.until(lambda: (run.poll(), run.status)[1])
        assert run.seconds_unreachable() == 0
        network.cut()
        sent = run.request(ControlRun("pause"))
        training.until(lambda: (run.poll(), run.seconds_unreachable() > 0.1)[1])
        assert "unreachable, last message at" in repr(run)
        network.restore()
        received: list[Request] = []

        def has_caught_up() -> bool:
            run.poll()
            received.extend(request for _, request in training.server.receive())
            return {one.body for one in received} == {ControlRun("pause"), ControlRun("send_state")}

        training.until(has_caught_up)
        assert {one.id for one in received if one.body == ControlRun("pause")} == {sent}
        assert run.seconds_unreachable() == 0


def test_a_key_that_was_refused_early_made_the_run_seem_unreachable(
    training: SimulatedRun, monkeypatch: pytest.MonkeyPatch
):
    """The run may refuse a key before the first request is sent."""

    def send(requester: Requester, request: Request) -> None:
        raise ProtocolError("the run is unreachable")

    monkeypatch.setattr(Requester, "send", send)
    monkeypatch.setattr(Requester, "is_key_refused", lambda _: True)
    with pytest.raises(KeyRefusedError):
        attach(training.connection)
    monkeypatch.setattr(Requester, "is_key_refused", lambda _: False)
    with pytest.raises(ProtocolError, match="unreachable"):
        attach(training.connection)


def test_slow_batches_are_no_silence(training: SimulatedRun, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_messages, "SILENT_SECONDS", 0.0)
    run = training.run
    assert run.is_silent()
    training.publish(structure(), replace(snapshot(1), batches_per_second=0.01))
    training.until(lambda: (run.poll(), run.snapshot)[1])
    assert not run.is_silent()
