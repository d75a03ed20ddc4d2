"""Requests that arrive twice, because a client repeats one whose reply it has missed."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from revacnn_lightning.protocol.messages import Refused, Reply, Request
from revacnn_lightning.protocol.requests import (
    ListKeys,
    SendHistory,
    Viewing,
)

__all__ = ["RepeatedRequests"]

UNCHANGING = Viewing | SendHistory | ListKeys
REMEMBERED = 256  # requests
MAX_REPETITIONS = 16  # that wait for the reply to the first one

SendReply = Callable[[Reply], None]


@dataclass
class _FirstRequest:
    client: bytes
    content: bytes  # digest of everything but the id
    reply: Reply | None = None
    waiting: list[SendReply] = field(default_factory=list)

    def set_reply(self, reply: Reply) -> None:
        self.reply = reply
        for send in self.waiting:
            send(reply)
        self.waiting.clear()


class RepeatedRequests:
    """Makes sure that a request is carried out once, however often it arrives.

    It is recognized by its id and its content, because a client that connects again counts as
    another one. Plans, inspections, the history and the list of keys change nothing and may be
    repeated. They are not kept here: a history has megabytes, and the list is for the owner alone.
    """

    def __init__(self) -> None:
        self._first: OrderedDict[str, _FirstRequest] = OrderedDict()

    def admit(self, client: bytes, request: Request, send: SendReply) -> SendReply | None:
        """Return what to do with the reply to a request that is to be carried out.

        None: it is not to be carried out, because it is a repetition. It gets the reply to the
        first one as soon as there is one. An id that the client has used for another request is
        refused.
        """
        if request.dry_run or isinstance(request.body, UNCHANGING):
            return send
        content = _digest(request)
        first = self._first.get(request.id)
        if first is not None and first.content == content:
            _repeat(first, request, send)
            return None
        if first is not None and first.client == client:
            reason = f"the id {request.id!r} was used for another request; use an id once"
            send(Refused(request.id, reason))
            return None
        return self._remember(_FirstRequest(client, content), request.id, send)

    def _remember(self, first: _FirstRequest, request_id: str, send: SendReply) -> SendReply:
        self._first.pop(request_id, None)
        self._first[request_id] = first
        if len(self._first) > REMEMBERED:
            self._first.popitem(last=False)

        def send_to_all(reply: Reply) -> None:
            send(reply)
            first.set_reply(reply)

        return send_to_all


def _repeat(first: _FirstRequest, request: Request, send: SendReply) -> None:
    """Send the reply to the first request again, as soon as there is one."""
    if first.reply is not None:
        send(first.reply)
    elif len(first.waiting) < MAX_REPETITIONS:
        first.waiting.append(send)
    else:
        send(Refused(request.id, "this request is pending already; wait for its reply"))


def _digest(request: Request) -> bytes:
    content = msgspec.msgpack.encode((request.body, request.version))
    return hashlib.blake2b(content, digest_size=16).digest()
