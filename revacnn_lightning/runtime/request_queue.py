"""The requests that wait for a batch boundary, from viewers and from inside the process alike."""

from __future__ import annotations

import functools
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from revacnn_lightning.errors import EditRefusedError, RequestTimeoutError
from revacnn_lightning.protocol.messages import Refused, Reply, Request
from revacnn_lightning.protocol.requests import ControlRun, Edit
from revacnn_lightning.protocol.sockets import RequestServer

__all__ = ["PendingRequest", "RequestQueue"]


@dataclass
class PendingRequest:
    """An edit asked for from inside the training process; it is answered at a batch boundary."""

    id: str
    reply: Reply | None = None

    def answer(self, reply: Reply) -> None:
        self.reply = reply

    def result(self) -> Reply:
        """The reply.

        Raises:
            Refused: the edit was refused, for the reason given.
            RequestTimeout: no batch boundary has come yet.
        """
        if self.reply is None:
            raise RequestTimeoutError(
                "no batch boundary has come since; ask again after the next batch"
            )
        if isinstance(self.reply, Refused):
            raise EditRefusedError(self.reply.reason)
        return self.reply


class RequestQueue:
    """Takes requests without waiting, and hands them out when they may be answered."""

    def __init__(self, server: RequestServer) -> None:
        self._server = server
        self._waiting: deque[tuple[Callable[[Reply], None], Request]] = deque()

    def take(self, greet: Callable[[bytes], None]) -> None:
        """Take what has arrived; greetings go to ``greet`` at once."""
        for client, request in self._server.receive():
            if request.body == ControlRun("send_state"):
                greet(client)
            else:
                self._waiting.append((functools.partial(self._server.reply, client), request))

    def submit(self, edit: Edit, *, dry_run: bool = False) -> PendingRequest:
        """Add a request from inside the process, from any thread."""
        pending = PendingRequest(uuid.uuid4().hex)
        self._waiting.append((pending.answer, Request(pending.id, edit, dry_run=dry_run)))
        return pending

    def serve(self, answer: Callable[[Request], Reply], may: Callable[[Request], bool]) -> None:
        """Answer what waits and ``may`` be answered now, in order of arrival; the rest stays."""
        for _ in range(len(self._waiting)):
            send, request = self._waiting.popleft()
            if may(request):
                send(answer(request))
            else:
                self._waiting.append((send, request))

    def refuse_all(self, reason: str, version: int) -> None:
        """Refuse all that still waits."""
        while self._waiting:
            send, request = self._waiting.popleft()
            send(Refused(request.id, reason, version))
