"""Whether a run can be reached and replies."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from revacnn_lightning.client.attach import attach
from revacnn_lightning.client.doctor import reachability
from revacnn_lightning.client.doctor.finding import Finding
from revacnn_lightning.client.doctor.reachability import check_run
from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.messages import Message, Refused, Request
from revacnn_lightning.protocol.processes import machine_id
from revacnn_lightning.protocol.sockets import Keys
from tests.client.keyed_run import KeyedRun
from tests.client.simulated_run import SimulatedRun, status
from tests.protocol.stopped_process import stopped_process

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


@contextmanager
def replying(training: SimulatedRun, make: object) -> Iterator[None]:
    """Reply to the first request meanwhile."""

    def reply() -> None:
        client, request = training.receive()
        message: Message = make(request)  # type: ignore[operator]
        training.server.reply(client, message)

    thread = threading.Thread(target=reply)
    thread.start()
    yield
    thread.join()


def check(connection: Connection) -> list[Finding]:
    return list(check_run(connection))


def test_a_run_that_replies_is_fine(training: SimulatedRun):
    with replying(training, lambda _: replace(status("training"), time=time.time())):
        findings = check(training.connection)
    assert [finding.status for finding in findings] == ["ok", "ok"]
    assert "it replies: training, batch 7" in findings[1].text


def test_clocks_that_differ_and_another_release_are_noted(training: SimulatedRun):
    with replying(training, lambda _: replace(status("training"), time=time.time() - 3600)):
        findings = check(replace(training.connection, release="0.0.1"))
    assert [finding.status for finding in findings] == ["ok", "ok", "note", "note"]
    assert "3600 s ahead of that of the run" in findings[2].text
    assert "release 0.0.1" in findings[3].text


def test_a_closed_port_is_a_problem_with_the_ssh_command(training: SimulatedRun):
    training.close_sockets()
    [finding] = check(replace(training.connection, hostname="gpu7", machine="other/1"))
    assert finding.status == "problem"
    assert "nothing listens there" in finding.text
    assert "ssh -N -L" in finding.advice


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reachability, "REPLY_SECONDS", 0.5)


@needs_proc
@pytest.mark.usefixtures("impatient")
def test_a_stopped_training_was_taken_for_one_with_another_key(training: SimulatedRun):
    """Its sockets accept connections, and nobody replies."""
    with stopped_process() as process:
        keys = Keys.generate().public
        stopped = replace(
            training.connection, server_key=keys, pid=process.pid, machine=machine_id()
        )
        findings = check(stopped)
    assert [finding.status for finding in findings] == ["ok", "problem"]
    assert findings[1].text.startswith(f"its process {process.pid} is stopped")
    assert findings[1].advice == f"continue it with: kill -CONT {process.pid}"


@pytest.mark.usefixtures("impatient")
def test_a_key_of_another_run_is_a_problem(training: SimulatedRun):
    findings = check(replace(training.connection, server_key=Keys.generate().public))
    assert [finding.status for finding in findings] == ["ok", "problem"]
    assert "does not prove that it has the key" in findings[1].text


def test_a_key_that_was_revoked_is_a_problem():
    """The run was said to be another one, whose connection file is to be copied again."""
    keyed = KeyedRun()
    try:
        with attach(keyed.connection) as owner:
            connection = owner.share("observer", name="ann")
            assert check(connection)[1].status == "ok"
            owner.revoke("ann")
        finding = check(connection)[1]
    finally:
        keyed.close()
    assert finding.status == "problem"
    assert "does not admit the key 'ann'" in finding.text
    assert "ask the owner" in finding.advice


@pytest.mark.usefixtures("impatient")
def test_a_training_that_does_not_reply_is_a_problem(training: SimulatedRun):
    assert "has not replied within" in check(training.connection)[1].text


def test_a_refusal_is_a_problem(training: SimulatedRun):
    def refuse(request: Request) -> Refused:
        return Refused(request.id, "install the same version")

    with replying(training, refuse):
        findings = check(training.connection)
    assert findings[1].text == "it refuses this side: install the same version"
