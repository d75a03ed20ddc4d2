"""A request to a run that has ended, or cannot be reached, does not wait for its timeout."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from revacnn_lightning.client import run_requests
from revacnn_lightning.client.attach import attach
from revacnn_lightning.client.run import Run
from revacnn_lightning.errors import RequestTimeoutError, RunEndedError
from revacnn_lightning.protocol.messages import Done
from revacnn_lightning.protocol.requests import AddFilters, ControlRun, SendHistory, Undo
from tests.client.simulated_run import SimulatedRun

LONG = 600.0  # seconds: a test that waits for this timeout hangs


@pytest.fixture
def killed() -> Iterator[SimulatedRun]:
    """A run whose process was killed and not waited for."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    one = SimulatedRun(process.pid, socket.gethostname())
    assert not one.run.has_ended()
    process.kill()
    one.until(one.run.has_ended)
    yield one
    process.communicate()
    one.close()


def test_requests_after_the_end_are_refused_immediately(training: SimulatedRun) -> None:
    training.end("failed", "out of memory")
    training.until(lambda: training.run.poll() or training.run.has_ended())
    for request in (
        lambda: training.run.apply(AddFilters("conv1"), timeout=LONG),
        lambda: training.run.plan(Undo(), timeout=LONG),
        lambda: training.run.command(ControlRun("pause"), timeout=LONG),
        lambda: training.run.detail("conv1", timeout=LONG),
        lambda: training.run.train(3, timeout=LONG),
        lambda: training.run.inspect("conv1", 0, timeout=LONG),
    ):
        with pytest.raises(RunEndedError, match=r"ended .failed before batch 7: out of memory"):
            request()
    # A slow client may have asked for the history before.
    received = [request.body for _, request in training.server.receive()]
    assert [body for body in received if not isinstance(body, SendHistory)] == []


def test_a_request_is_given_up_when_the_run_ends_without_a_reply(training: SimulatedRun) -> None:
    training.end("finished")
    time.sleep(0.2)
    with pytest.raises(RunEndedError, match="finished before batch 7"):
        training.run._wait_for_reply("any", LONG)


def test_a_reply_that_arrives_after_the_end_counts(training: SimulatedRun) -> None:
    """The two messages take different ways."""
    request_id = training.run.request(ControlRun("stop"))
    sender, request = training.receive()
    training.end("finished")
    training.until(lambda: (training.run._unread.add(training.run._receive()),
                            training.run.has_ended())[1])  # fmt: skip
    training.server.reply(sender, Done(request.id, "Stopping"))
    assert training.run._wait_for_reply(request_id, LONG) == Done(request_id, "Stopping")


def test_requests_to_a_killed_process_are_refused_immediately(killed: SimulatedRun) -> None:
    with pytest.raises(RunEndedError, match="process exited unexpectedly"):
        killed.run.command(ControlRun("pause"), timeout=LONG)
    with pytest.raises(RunEndedError, match="has ended"):
        attach(killed.connection, timeout=LONG)


def test_a_run_on_another_machine_that_is_gone_is_given_up(
    training: SimulatedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_requests, "UNREACHABLE_SECONDS", 0.3)
    training.close_sockets()
    with pytest.raises(RequestTimeoutError, match=r"not been reachable .* it has ended, or"):
        training.run.command(ControlRun("pause"), timeout=LONG)


def test_a_connected_run_is_reachable(training: SimulatedRun) -> None:
    training.until(lambda: training.run._requester.seconds_disconnected() == 0.0)
    training.close_sockets()
    training.until(lambda: training.run._requester.seconds_disconnected() > 0.0)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts files in /proc")
def test_closing_a_client_leaves_no_socket(training: SimulatedRun) -> None:
    def files() -> int:
        return len(os.listdir("/proc/self/fd"))

    Run(training.connection).close()
    before = files()
    for _ in range(5):
        Run(training.connection).close()
    training.until(lambda: files() <= before)
