"""The sockets of a run without a training, and a client that is attached to it."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from revacnn_lightning.client.run import Run
from revacnn_lightning.protocol import run_sockets
from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.messages import (
    LayerInfo,
    Message,
    Reply,
    Request,
    Snapshot,
    Status,
    Structure,
    TrainingState,
)
from revacnn_lightning.protocol.senders import RequestSender
from revacnn_lightning.protocol.sockets import Keys, Publisher, RequestServer

STATISTICS = ["gradient", "activation"]


def status(state: TrainingState, detail: str = "") -> Status:
    return Status("run", state, 7, 0, 0.0, detail)


def layer(name: str, *ids: int) -> LayerInfo:
    return LayerInfo(name, "Conv2d", 3, len(ids), (3, 3), (1, 1), 1, list(ids))


def structure(version: int = 0, *layers: LayerInfo) -> Structure:
    return Structure("run", version, 0, "Net", list(layers or [layer("a", 0, 1), layer("b", 4)]))


def snapshot(step: int, version: int = 0, filters: int = 3) -> Snapshot:
    """A snapshot whose gradients are the filters' indices, and whose activations are 10 more."""
    values = np.arange(filters, dtype=np.float32) + np.array([[0], [10]], np.float32)
    return Snapshot(
        run="run", version=version, step=step, epoch=step // 10, batch_index=step % 10,
        batches_per_epoch=10, max_epochs=3, time=0.0, loss=1 / (1 + step), learning_rates=[0.1],
        batches_per_second=50.0, statistics=STATISTICS, values=values, metrics={"accuracy": 0.5},
    )  # fmt: skip


class SimulatedRun:
    """The sockets of a run, and a client that is attached to it.

    Attributes:
        run: the client.
    """

    def __init__(self, pid: int = 0, hostname: str = "") -> None:
        keys = Keys.generate()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run_sockets, "SEND_QUEUE", 1000)  # tests publish faster than a training
            self.publisher = Publisher("tcp://127.0.0.1:0", keys)
        self.server = RequestServer("tcp://127.0.0.1:0", keys)
        self.connection = Connection(
            "run", self.publisher.endpoint, self.server.endpoint, keys.public,
            pid=pid, hostname=hostname,
        )  # fmt: skip
        self.run = Run(self.connection)
        self.until(lambda: (self.publish(status("training", "attaching")), self.run.poll())[1])
        self.publish(status("training"))
        # Several of the first may be on their way: wait for the last message.
        self.until(lambda: (self.run.poll(), self.run.status == status("training"))[1])
        self.until(lambda: list(self.server.receive()))
        self.until(lambda: self.run.seconds_unreachable() == 0)  # it looks now and then

    @staticmethod
    def until(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 240
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def publish(self, *messages: Message) -> None:
        for message in messages:
            self.publisher.publish(message)

    def end(self, state: TrainingState, detail: str = "") -> None:
        """Publish the end of the run."""
        self.publisher.publish(status(state, detail))

    def receive(self) -> tuple[bytes, Request]:
        """Wait for the next request that is not for the state."""
        found: list[tuple[bytes, Request]] = []
        self.until(lambda: found.extend(self.server.receive()) or found)
        return found[0]

    def send_state(self, client: RequestSender) -> None:
        """Send what a client requests when it attaches."""
        self.server.reply(client, structure())
        self.server.reply(client, status("training"))

    def reply(self, make: Callable[[Request], Reply]) -> Request:
        """Receive a request and reply to it; return the request."""
        client, request = self.receive()
        self.server.reply(client, make(request))
        return request

    def close_sockets(self) -> None:
        self.publisher.close()
        self.server.close()

    def close(self) -> None:
        self.run.close()
        self.close_sockets()
