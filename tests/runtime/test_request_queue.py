"""Requests wait for a batch boundary, and never longer than the run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from revacnn_lightning import AddFilters, ControlRun, EditRefusedError
from revacnn_lightning.protocol.messages import Done, Refused, Reply, Request
from revacnn_lightning.runtime.request_queue import RequestQueue


class Server:
    """A request server with one client."""

    def __init__(self, *requests: Request) -> None:
        self.requests = [*requests]
        self.replies: list[Reply] = []

    def receive(self) -> Iterator[tuple[bytes, Request]]:
        while self.requests:
            yield b"client", self.requests.pop(0)

    def reply(self, client: bytes, reply: Reply) -> None:
        self.replies.append(reply)


def done(request: Request) -> Reply:
    return Done(request.id)


def test_requests_that_cannot_be_handled_yet_stay_in_order() -> None:
    bodies: list[Any] = [AddFilters("conv1"), ControlRun("pause"), AddFilters("conv2")]
    server = Server(*(Request(str(i), body) for i, body in enumerate(bodies)))
    queue = RequestQueue(server)  # type: ignore[arg-type]
    queue.receive(lambda _: None)
    queue.handle(done, lambda request: isinstance(request.body, ControlRun))
    assert [reply.id for reply in server.replies] == ["1"]
    queue.handle(done, lambda _: True)
    assert [reply.id for reply in server.replies] == ["1", "0", "2"]
    assert queue.is_empty


def test_requests_are_refused_immediately_after_the_end() -> None:
    """One from another thread may arrive while the run ends."""
    queue = RequestQueue()
    early = queue.submit(AddFilters("conv1"))
    queue.refuse_all("the training has ended", 3)
    late = queue.submit(AddFilters("conv1"))
    for pending in (early, late):
        assert pending.reply == Refused(pending.id, "the training has ended", 3)
        with pytest.raises(EditRefusedError, match="has ended"):
            pending.result()
    assert queue.is_empty
