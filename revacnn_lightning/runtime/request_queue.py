"""Requests that wait for a batch boundary, from viewers and from inside the process alike."""

from __future__ import annotations

import functools
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from revacnn_lightning.errors import EditRefusedError, RequestTimeoutError
from revacnn_lightning.protocol.messages import Refused, Reply, Request
from revacnn_lightning.protocol.requests import ControlRun, RequestBody
from revacnn_lightning.protocol.sockets import RequestServer
from revacnn_lightning.protocol.validation import validate_request

__all__ = ["PendingRequest", "RequestQueue"]


@dataclass
class PendingRequest:
    """A request from inside the training process. It is handled at the next batch boundary.

    Attributes:
        id: id of the request.
        reply: the reply; None until there is one.
    """

    id: str
    reply: Reply | None = None

    def set_reply(self, reply: Reply) -> None:
        self.reply = reply

    def result(self) -> Reply:
        """Return the reply.

        Raises:
            EditRefusedError: the request was refused; the message says why.
            RequestTimeoutError: there was no batch boundary yet.
        """
        if self.reply is None:
            raise RequestTimeoutError(
                "the request is still pending; ask for its result after the next training batch"
            )
        if isinstance(self.reply, Refused):
            raise EditRefusedError(self.reply.reason)
        return self.reply


class RequestQueue:
    """Receives requests without waiting and hands them to a handler when they can be handled.

    Args:
        server: receives requests of viewers; None: requests come from inside the process only.
    """

    def __init__(self, server: RequestServer | None = None) -> None:
        self._server = server
        self._end: tuple[str, int] | None = None  # why nothing is handled any more, and the version
        self._pending: deque[tuple[Callable[[Reply], None], Request]] = deque()

    @property
    def is_empty(self) -> bool:
        """Whether no request is pending."""
        return not self._pending

    def receive(self, send_state: Callable[[bytes], None]) -> None:
        """Queue the requests that have arrived.

        A client that requests the state of the run gets it immediately, by ``send_state``.
        """
        server = self._server
        if server is None:
            return
        for client, request in server.receive():
            if request.body == ControlRun("send_state"):
                send_state(client)
            else:
                self._pending.append((functools.partial(server.reply, client), request))

    def submit(self, body: RequestBody, *, dry_run: bool = False) -> PendingRequest:
        """Queue a request from inside the process; safe in any thread.

        An invalid request is refused immediately.
        """
        pending = PendingRequest(uuid.uuid4().hex)
        try:
            request = Request(pending.id, validate_request(body), dry_run=dry_run)
        except EditRefusedError as error:
            pending.set_reply(Refused(pending.id, str(error)))
        else:
            self._pending.append((pending.set_reply, request))
            if self._end is not None:  # also if another thread has ended the run just now
                self.refuse_all(*self._end)
        return pending

    def handle(
        self, handle: Callable[[Request], Reply], can_handle: Callable[[Request], bool]
    ) -> None:
        """Handle the pending requests that ``can_handle`` admits, in order of arrival."""
        for _ in range(len(self._pending)):
            reply, request = self._pending.popleft()
            if can_handle(request):
                reply(handle(request))
            else:
                self._pending.append((reply, request))

    def refuse_all(self, reason: str, version: int) -> None:
        """Refuse all pending requests, and all that are submitted later."""
        self._end = (reason, version)
        while True:
            try:
                reply, request = self._pending.popleft()
            except IndexError:  # another thread may refuse them as well
                return
            reply(Refused(request.id, reason, version))
