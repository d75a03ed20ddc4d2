"""A run with keys that a thread serves, without a training."""

from __future__ import annotations

import threading
import time

from revacnn_lightning.protocol.access_messages import Access
from revacnn_lightning.protocol.messages import Done, Planned, PlanSummary, Reply, Request
from revacnn_lightning.protocol.senders import RequestSender
from revacnn_lightning.runtime.key_commands import AccessKeyCommands
from revacnn_lightning.runtime.request_queue import RequestQueue
from revacnn_lightning.runtime.server import Endpoints, RunServer
from tests.client.simulated_run import status, structure


class KeyedRun:
    """Serves the state, commands about keys, plans, and other commands, until `close`.

    Attributes:
        replies: (name of the key, request, reply) of all requests but those for the state.
    """

    def __init__(self, endpoints: Endpoints | None = None) -> None:
        self.server = RunServer("run", "Net", endpoints or Endpoints())
        self.connection = self.server.connection
        self.replies: list[tuple[str, Request, Reply]] = []
        self._commands = AccessKeyCommands(self.server.keys, self.server.publisher)
        self._queue = RequestQueue(self.server.request_server, self._commands, self._record)
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._is_ending.set()
        self._thread.join()
        self.server.close()

    def _serve(self) -> None:
        while not self._is_ending.is_set():
            self._commands.end_expired_keys()
            self._queue.receive(self._send_state)
            self._queue.handle(_reply, lambda _: True)
            if self.server.publisher.has_subscribers():
                self.server.publisher.publish(status("training"))
            time.sleep(0.005)

    def _send_state(self, sender: RequestSender) -> None:
        access = Access(sender.key.name, sender.key.role, sender.key.expires)
        for message in (access, structure(0), status("training")):
            self.server.request_server.reply(sender, message)

    def _record(self, sender: RequestSender | None, request: Request, reply: Reply) -> None:
        self.replies.append((sender.key.name if sender else "", request, reply))


def _reply(request: Request) -> Reply:
    if request.dry_run:
        return Planned(request.id, PlanSummary("a plan"))
    return Done(request.id)
