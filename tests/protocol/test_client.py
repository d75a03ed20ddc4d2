"""A request to a run that has ended, or cannot be reached, does not wait for its timeout."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from revacnn_lightning.diagnostics.dead_filters import DEAD_BATCHES
from revacnn_lightning.errors import RequestTimeoutError, RunEndedError
from revacnn_lightning.protocol import client
from revacnn_lightning.protocol.client import Run, attach
from revacnn_lightning.protocol.connection import Connection
from revacnn_lightning.protocol.messages import (
    Done,
    LayerInfo,
    Snapshot,
    Status,
    Structure,
    TrainingState,
)
from revacnn_lightning.protocol.requests import AddFilters, ControlRun, Undo
from revacnn_lightning.protocol.sockets import Keys, Publisher, RequestServer

LONG = 600.0  # seconds: a test that waits for this timeout hangs


def status(state: TrainingState, detail: str = "") -> Status:
    return Status("run", state, 7, 0, 0.0, detail)


class Training:
    """The sockets of a run, and a client that is attached to it."""

    def __init__(self, pid: int = 0, hostname: str = "") -> None:
        keys = Keys.generate()
        self.publisher = Publisher("tcp://127.0.0.1:0", keys)
        self.server = RequestServer("tcp://127.0.0.1:0", keys)
        self.connection = Connection(
            "run", self.publisher.endpoint, self.server.endpoint, keys.public,
            pid=pid, hostname=hostname,
        )  # fmt: skip
        self.run = Run(self.connection)
        self.step = 0
        self.until(lambda: (self.publisher.publish(status("training")), self.run.poll())[1])
        self.until(lambda: list(self.server.receive()))

    @staticmethod
    def until(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 240
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def end(self, state: TrainingState, detail: str = "") -> None:
        """Publish the end of the run."""
        self.publisher.publish(status(state, detail))

    def close_sockets(self) -> None:
        self.publisher.close()
        self.server.close()


@pytest.fixture
def training() -> Iterator[Training]:
    one = Training()
    yield one
    one.run.close()
    one.close_sockets()


@pytest.fixture
def killed() -> Iterator[Training]:
    """A run whose process was killed and not waited for."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    one = Training(process.pid, socket.gethostname())
    assert not one.run.has_ended()
    process.kill()
    one.until(one.run.has_ended)
    yield one
    process.communicate()
    one.run.close()
    one.close_sockets()


def test_requests_after_the_end_are_refused_immediately(training: Training) -> None:
    training.end("failed", "out of memory")
    training.until(lambda: training.run.poll() or training.run.has_ended())
    for request in (
        lambda: training.run.apply(AddFilters("conv1"), timeout=LONG),
        lambda: training.run.plan(Undo(), timeout=LONG),
        lambda: training.run.command(ControlRun("pause"), timeout=LONG),
        lambda: training.run.train(3, timeout=LONG),
        lambda: training.run.inspect("conv1", 0, timeout=LONG),
    ):
        with pytest.raises(RunEndedError, match=r"ended .failed before batch 7: out of memory"):
            request()
    assert list(training.server.receive()) == []


def test_a_request_is_given_up_when_the_run_ends_without_a_reply(training: Training) -> None:
    training.end("finished")
    time.sleep(0.2)
    with pytest.raises(RunEndedError, match="finished before batch 7"):
        training.run._wait_for_reply("any", LONG)


def test_a_reply_that_arrives_after_the_end_counts(training: Training) -> None:
    """The two messages take different ways."""
    request_id = training.run.request(ControlRun("stop"))
    [(sender, request)] = list_of_requests(training)
    training.end("finished")
    training.until(lambda: (training.run._keep_unread(training.run._receive()),
                            training.run.has_ended())[1])  # fmt: skip
    training.server.reply(sender, Done(request.id, "Stopping"))
    assert training.run._wait_for_reply(request_id, LONG) == Done(request_id, "Stopping")


def test_dead_filters_of_a_run_are_those_of_the_page(training: Training) -> None:
    def layer(name: str, *ids: int) -> LayerInfo:
        return LayerInfo(name, "Conv2d", 3, len(ids), (3, 3), (1, 1), 1, list(ids))

    def structure(version: int, *layers: LayerInfo) -> None:
        training.publisher.publish(Structure("run", version, 0, "Net", list(layers)))
        training.until(training.run.poll)

    def batches(version: int, count: int, activation: list[float]) -> None:
        for _ in range(count):  # one by one: a run never waits for a slow client
            training.step += 1
            values = np.array([activation], np.float32)
            training.publisher.publish(snapshot(version, training.step, values))
            training.until(training.run.poll)

    structure(0, layer("a", 0, 1), layer("b", 0, 1, 2))
    batches(0, DEAD_BATCHES - 1, [1, 0, 0, 2, 0])
    assert training.run.dead_filters("b") == []
    batches(0, 1, [1, 0, 0, 2, 3])
    assert training.run.dead_filters("a") == [1]
    assert training.run.dead_filters("b") == [0]
    structure(1, layer("a", 0, 1), layer("b", 2, 3, 0))
    assert training.run.dead_filters("b") == [2]
    with pytest.raises(ValueError, match="no convolution c"):
        training.run.dead_filters("c")


def snapshot(version: int, step: int, values: np.ndarray) -> Snapshot:
    return Snapshot(
        run="run", version=version, step=step, epoch=0, batch_index=0, batches_per_epoch=0,
        max_epochs=0, time=0.0, loss=None, learning_rates=[], batches_per_second=1.0,
        statistics=["activation"], values=values, metrics={},
    )  # fmt: skip


def list_of_requests(training: Training) -> list:
    found: list = []
    training.until(lambda: found.extend(training.server.receive()) or found)
    return found


def test_requests_to_a_killed_process_are_refused_immediately(killed: Training) -> None:
    with pytest.raises(RunEndedError, match="process exited unexpectedly"):
        killed.run.command(ControlRun("pause"), timeout=LONG)
    with pytest.raises(RunEndedError, match="has ended"):
        attach(killed.connection, timeout=LONG)


def test_a_run_on_another_machine_that_is_gone_is_given_up(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "UNREACHABLE_SECONDS", 0.3)
    training.close_sockets()
    with pytest.raises(RequestTimeoutError, match=r"not been reachable .* it has ended, or"):
        training.run.command(ControlRun("pause"), timeout=LONG)


def test_a_connected_run_is_reachable(training: Training) -> None:
    training.until(lambda: training.run._requester.seconds_disconnected() == 0.0)
    training.close_sockets()
    training.until(lambda: training.run._requester.seconds_disconnected() > 0.0)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts files in /proc")
def test_closing_a_client_leaves_no_socket(training: Training) -> None:
    def files() -> int:
        return len(os.listdir("/proc/self/fd"))

    Run(training.connection).close()
    before = files()
    for _ in range(5):
        Run(training.connection).close()
    training.until(lambda: files() <= before)


def test_a_status_from_before_the_command_is_not_its_pause(training: Training) -> None:
    """The reply may overtake the status that was published before it."""
    training.publisher.publish(Status("run", "paused", 7, 0, 0.0))
    with pytest.raises(RequestTimeoutError, match="has not paused within"):
        training.run._wait_for_pause(7, time.monotonic() + 0.2, 0.2)
    training.publisher.publish(Status("run", "paused", 12, 0, 0.0))
    assert training.run._wait_for_pause(7, time.monotonic() + LONG, LONG) == 12
