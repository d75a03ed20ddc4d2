"""Attaching waits for a run to start, and for its state."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from revacnn_lightning import ConnectionFileError, attach
from revacnn_lightning.protocol import connection as connections
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
