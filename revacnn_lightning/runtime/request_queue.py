"""Requests that wait for a batch boundary, from viewers and from inside the process alike."""

from __future__ import annotations

import functools
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from revacnn_lightning.errors import EditRefusedError, RequestTimeoutError
from revacnn_lightning.protocol.access_keys import SCRIPT, AccessKey
from revacnn_lightning.protocol.messages import Refused, Reply, Request
from revacnn_lightning.protocol.requests import (
    ControlRun,
    KeyCommand,
    RequestBody,
    is_steering,
)
from revacnn_lightning.protocol.senders import RequestSender
from revacnn_lightning.protocol.sockets import RequestServer
from revacnn_lightning.protocol.validation import validate_request
from revacnn_lightning.runtime.key_commands import AccessKeyCommands
from revacnn_lightning.runtime.repeated_requests import RepeatedRequests

__all__ = ["PendingRequest", "RequestQueue"]

# Pending requests of viewers. Plans, which may have to wait (see `PlanTimeBudget`), have a limit of
# their own: whoever floods the run with them keeps nobody from pausing it.
MAX_PENDING, MAX_PENDING_PLANS = 256, 128


@dataclass(frozen=True)
class _QueuedRequest:
    send: Callable[[Reply], None]
    request: Request
    sender: RequestSender | None = None  # None: from inside the process
    key: AccessKey = SCRIPT  # of one from inside

    @property
    def is_viewers_plan(self) -> bool:
        """Whether it must not slow the training."""
        return self.request.dry_run and self.sender is not None


@dataclass
class PendingRequest:
    """A request from inside the training process. It is handled at the next batch boundary.

    Attributes:
        id: id of the request.
        reply: the reply; None until there is one.
        on_reply: is called with it, before any other request is handled.
    """

    id: str
    reply: Reply | None = None
    on_reply: Callable[[Reply], None] = lambda _: None

    def set_reply(self, reply: Reply) -> None:
        self.reply = reply
        self.on_reply(reply)

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
        server: receives requests of viewers; None if requests come from inside the process only.
        key_commands: executes the commands about keys.
        on_reply: is called with every request, its sender, and the reply.
    """

    def __init__(
        self,
        server: RequestServer | None = None,
        key_commands: AccessKeyCommands | None = None,
        on_reply: Callable[[RequestSender, Request, Reply], None] = lambda *_: None,
    ) -> None:
        self._server = server
        self._key_commands = key_commands
        self._on_reply = on_reply
        self._end: tuple[str, int] | None = None  # why nothing is handled any more, and the version
        self._pending: deque[_QueuedRequest] = deque()
        self._n_plans = 0  # of viewers, among the pending requests
        self._repeated = RepeatedRequests()

    @property
    def is_empty(self) -> bool:
        """Whether no request is pending."""
        return not self._pending

    def has_work(self, may_plan: bool) -> bool:
        """Return whether a request is pending, not counting plans of viewers that must wait."""
        return len(self._pending) > (0 if may_plan else self._n_plans)

    def has_matching(self, is_wanted: Callable[[Request], bool]) -> bool:
        """Return whether such a request is pending."""
        return any(is_wanted(queued.request) for queued in list(self._pending))

    def receive(self, send_state: Callable[[RequestSender], object]) -> None:
        """Queue the requests that have arrived.

        A client that requests the state of the run gets it immediately, by ``send_state``. Requests
        that the client's key does not permit are refused, and commands about keys are executed.
        """
        server = self._server
        if server is None:
            return
        for sender, request in server.receive():
            if request.body == ControlRun("send_state") and not request.dry_run:
                send_state(sender)
            elif refusal := self._refuse(sender, request):
                server.reply(sender, refusal)
                self._on_reply(sender, request, refusal)
            else:
                self._admit(sender, request, functools.partial(server.reply, sender))

    def _refuse(self, sender: RequestSender, request: Request) -> Refused | None:
        """Return why a request is not admitted; None if it is."""
        if self._is_key_command(request):
            return None  # they have stricter rules of their own
        if is_steering(request.body, dry_run=request.dry_run) and not sender.key.can_steer:
            return Refused(
                request.id,
                f"the key {sender.key.name!r} only observes this run; ask its owner for the file "
                "that revacnn share --operator writes",
            )
        if self._is_full(request):
            reason = "too many requests are pending; repeat this one after their replies"
            return Refused(request.id, reason)
        return None

    def _admit(
        self, sender: RequestSender, request: Request, send: Callable[[Reply], None]
    ) -> None:
        """Queue a request, or execute one that needs no batch boundary. Repeated ones are not."""
        admitted = self._repeated.admit(sender.routing_id, request, send)
        if admitted is None:
            return
        queued = _QueuedRequest(admitted, request, sender)
        if self._key_commands is not None and self._is_key_command(request):
            self._reply(queued, self._key_commands.execute(sender, request))
            return
        self._n_plans += request.dry_run
        self._pending.append(queued)

    def _is_key_command(self, request: Request) -> bool:
        return isinstance(request.body, KeyCommand) and self._key_commands is not None

    def _is_full(self, request: Request) -> bool:
        if request.dry_run:
            return self._n_plans >= MAX_PENDING_PLANS
        return len(self._pending) - self._n_plans >= MAX_PENDING

    def submit(
        self,
        body: RequestBody,
        *,
        dry_run: bool = False,
        version: int | None = None,
        key: AccessKey = SCRIPT,
    ) -> PendingRequest:
        """Queue a request from inside the process; safe in any thread.

        An invalid request is refused immediately. ``key`` names who makes it.
        """
        pending = PendingRequest(uuid.uuid4().hex)
        try:
            request = Request(pending.id, validate_request(body), version, dry_run)
        except EditRefusedError as error:
            pending.set_reply(Refused(pending.id, str(error)))
        else:
            self._pending.append(_QueuedRequest(pending.set_reply, request, key=key))
            if self._end is not None:  # also if another thread has ended the run just now
                self.refuse_all(*self._end)
        return pending

    def handle(
        self,
        handle: Callable[[Request], Reply],
        can_handle: Callable[[Request], bool],
        can_plan: Callable[[], bool] = lambda: True,
    ) -> bool:
        """Handle the pending requests that ``can_handle`` admits, in order of arrival.

        Plans that viewers request are handled only while ``can_plan`` returns True.

        Returns:
            Whether a request was handled.
        """
        may_plan, has_handled = can_plan(), False
        if not self.has_work(may_plan):
            return False
        for _ in range(len(self._pending)):
            queued = self._pending.popleft()
            if queued.is_viewers_plan:
                may_plan = may_plan and can_plan()
                is_admitted = may_plan and can_handle(queued.request)
                self._n_plans -= is_admitted
            else:
                is_admitted = can_handle(queued.request)
            if is_admitted:
                has_handled = True
                self._reply(queued, self._refuse_ended(queued) or handle(queued.request))
            else:
                self._pending.append(queued)
        return has_handled

    def _refuse_ended(self, queued: _QueuedRequest) -> Refused | None:
        """Return a refusal if the key has expired or was revoked while the request was pending."""
        if self._key_commands is None or queued.sender is None:
            return None
        refusal = self._key_commands.refusal(queued.sender.key)
        return Refused(queued.request.id, refusal) if refusal else None

    def refuse_all(self, reason: str, version: int) -> None:
        """Refuse all pending requests, and all that are submitted later."""
        self._end = (reason, version)
        while True:
            try:
                queued = self._pending.popleft()
            except IndexError:  # another thread may refuse them as well
                return
            self._reply(queued, Refused(queued.request.id, reason, version))

    def _reply(self, queued: _QueuedRequest, reply: Reply) -> None:
        queued.send(reply)
        sender = queued.sender or RequestSender(b"", queued.key)
        self._on_reply(sender, queued.request, reply)
