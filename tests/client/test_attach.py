"""Attaching waits for a run to start, and for its state."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace

from revacnn_lightning import ConnectionFileError, ProtocolError, RequestTimeoutError, attach
from revacnn_lightning.protocol import connection_file
from revacnn_lightning.protocol.messages import Refused
from revacnn_lightning.protocol.processes import machine_id
from tests.client.simulated_run import SimulatedRun, status, structure
from tests.protocol.stopped_process import stopped_process

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


def reply_with_state(training: SimulatedRun) -> None:
    client, _ = training.receive()
    training.server.reply(client, structure())
    training.server.reply(client, status("training"))


def test_waits_for_a_run_to_start(training: SimulatedRun):
    """A script may be started before the training."""

    def start() -> None:
        connection_file.write(training.connection)
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


def test_a_run_of_this_machine_that_does_not_reply_was_sought_with_ssh(training: SimulatedRun):
    here = replace(training.connection, pid=os.getpid(), machine=machine_id())
    with pytest.raises(RequestTimeoutError, match="long batch or compiling") as silent:
        attach(here, timeout=0.1)
    endpoints = ("ipc:///tmp/revacnn-gone/telemetry", "ipc:///tmp/revacnn-gone/requests")
    gone = replace(here, telemetry_endpoint=endpoints[0], request_endpoint=endpoints[1])
    with pytest.raises(RequestTimeoutError, match="nobody listens at its sockets") as missing:
        attach(gone, timeout=0.1)
    assert "ssh" not in f"{silent.value} {missing.value}"
    with pytest.raises(RequestTimeoutError, match="ssh -N -L"):
        attach(replace(here, machine="other/1"), timeout=0.1)


@needs_proc
def test_attaching_to_a_stopped_training_says_that_it_is_stopped(training: SimulatedRun):
    with stopped_process() as process:
        stopped = replace(training.connection, pid=process.pid, machine=machine_id())
        with pytest.raises(RequestTimeoutError, match=f"is stopped.*kill -CONT {process.pid}"):
            attach(stopped, timeout=0.1)


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
    connection_file.write(resumed)
    replies = threading.Thread(target=reply_with_state, args=[training])
    replies.start()
    with attach(resumes=killed.run, wait=60) as run:
        assert run.connection == resumed
    replies.join()
    killed.close()
