"""Attaching waits for a run to start, and for its state."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from msgspec.structs import replace

from revacnn_lightning import ConnectionFileError, ProtocolError, attach
from revacnn_lightning.protocol import connection as connections
from revacnn_lightning.protocol.messages import Refused
from tests.client.simulated_run import SimulatedRun, status, structure


def reply_with_state(training: SimulatedRun) -> None:
    client, _ = training.receive()
    training.server.reply(client, structure())
    training.server.reply(client, status("training"))


def test_waits_for_a_run_to_start(training: SimulatedRun):
    """A script may be started before the training."""

    def start() -> None:
        connections.write(training.connection)
        reply_with_state(training)

    later = threading.Timer(0.3, start)
    later.start()
    with attach(wait=60) as run:
        assert run.structure == structure()
        assert run.status is not None
    later.join()


def test_without_a_run_attaching_fails_immediately(tmp_path: Path):
    with pytest.raises(ConnectionFileError, match="no training is running"):
        attach()
    with pytest.raises(ConnectionFileError, match="there is no connection file"):
        attach(tmp_path / "none.json")


def test_a_run_that_refuses_the_protocol_version_is_an_error_immediately(training: SimulatedRun):
    def refuse() -> None:
        client, request = training.receive()
        training.server.reply(client, Refused(request.id, "install the same version"))

    replies = threading.Thread(target=refuse)
    replies.start()
    with pytest.raises(ProtocolError, match="refuses this client: install the same version"):
        attach(training.connection, timeout=240)
    replies.join()


def test_a_script_goes_on_with_the_run_that_resumes_its_run(training: SimulatedRun):
    killed = SimulatedRun()
    killed.run.connection = replace(killed.connection, lineage="a" * 12, start_time=1.0)
    with pytest.raises(ConnectionFileError, match="no run resumes"):
        attach(resumes=killed.run)
    resumed = replace(training.connection, run="resumed", lineage="a" * 12, start_time=2.0)
    connections.write(resumed)
    replies = threading.Thread(target=reply_with_state, args=[training])
    replies.start()
    with attach(resumes=killed.run, wait=60) as run:
        assert run.connection == resumed
    replies.join()
    killed.close()
