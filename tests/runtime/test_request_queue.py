"""Requests wait for a batch boundary, and never longer than the run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from revacnn_lightning import AddFilters, ControlRun, EditRefusedError
from revacnn_lightning.protocol.access_keys import SCRIPT, AccessKey, KeyRing
from revacnn_lightning.protocol.messages import Done, Refused, Reply, Request
from revacnn_lightning.protocol.requests import InspectLayer, SendHistory, ShareKey
from revacnn_lightning.protocol.senders import RequestSender
from revacnn_lightning.runtime import request_queue
from revacnn_lightning.runtime.key_commands import AccessKeyCommands
from revacnn_lightning.runtime.request_queue import RequestQueue

OWNER = RequestSender(b"client", AccessKey("owner", "owner", "k" * 40))
OBSERVER = RequestSender(b"client", AccessKey("ann", "observer", "k" * 40))


class Server:
    """A request server with one client."""

    def __init__(self, *requests: Request, sender: RequestSender = OWNER) -> None:
        self.requests = [*requests]
        self.sender = sender
        self.replies: list[Reply] = []

    def receive(self) -> Iterator[tuple[RequestSender, Request]]:
        while self.requests:
            yield self.sender, self.requests.pop(0)

    def reply(self, client: RequestSender, reply: Reply) -> None:
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


def test_a_request_that_arrives_twice_is_handled_once() -> None:
    server = Server(*[Request("id", AddFilters("conv1"))] * 2)
    queue = RequestQueue(server)  # type: ignore[arg-type]
    handled: list[Request] = []
    queue.receive(lambda _: None)
    queue.handle(lambda request: (handled.append(request), Done(request.id))[1], lambda _: True)
    assert len(handled) == 1
    assert server.replies == [Done("id"), Done("id")]


def test_a_key_is_handed_out_once_though_the_reply_was_lost() -> None:
    """The repeated request was refused, because the run knew the key already."""

    class Commands:
        def __init__(self) -> None:
            self.executed: list[Request] = []

        def execute(self, sender: RequestSender, request: Request) -> Reply:
            self.executed.append(request)
            return Done(request.id) if len(self.executed) == 1 else Refused(request.id, "known")

    request = Request("id", ShareKey("bob", "operator", "k" * 40))
    server = Server(request, request)
    queue = RequestQueue(server, Commands())  # type: ignore[arg-type]
    queue.receive(lambda _: None)
    assert server.replies == [Done("id"), Done("id")]
    assert queue.is_empty


def test_a_dry_run_does_not_send_the_state() -> None:
    queue = RequestQueue(Server(Request("id", ControlRun("send_state"), dry_run=True)))  # type: ignore[arg-type]
    sent: list[RequestSender] = []
    queue.receive(sent.append)
    assert sent == []
    assert not queue.is_empty


def test_plans_of_viewers_wait_while_the_training_cannot_afford_them() -> None:
    bodies: list[Any] = [AddFilters("conv1"), AddFilters("conv2"), ControlRun("pause")]
    server = Server(*(Request(str(i), body, dry_run=i < 2) for i, body in enumerate(bodies)))
    queue = RequestQueue(server)  # type: ignore[arg-type]
    ours = queue.submit(AddFilters("conv3"), dry_run=True)
    queue.receive(lambda _: None)
    queue.handle(done, lambda _: True, lambda: False)
    assert [reply.id for reply in server.replies] == ["2"]
    assert ours.reply == Done(ours.id)  # made by the training itself
    assert not queue.has_work(may_plan=False)
    assert queue.has_work(may_plan=True)
    queue.handle(done, lambda _: True)
    assert [reply.id for reply in server.replies] == ["2", "0", "1"]
    assert queue.is_empty


def test_too_many_pending_requests_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_queue, "MAX_PENDING", 2)
    monkeypatch.setattr(request_queue, "MAX_PENDING_PLANS", 1)
    plans = [Request(str(i), AddFilters("conv1"), dry_run=True) for i in range(3)]
    server = Server(*plans, *(Request(str(i), AddFilters("conv1")) for i in range(3, 6)))
    queue = RequestQueue(server)  # type: ignore[arg-type]
    queue.receive(lambda _: None)
    assert [refusal.id for refusal in server.replies] == ["1", "2", "5"]
    assert all("too many requests" in refusal.reason for refusal in server.replies)


def test_an_observer_plans_and_inspects_but_changes_nothing() -> None:
    """One key served all: whoever could look could also steer."""
    key = ShareKey("bob", "operator", "k" * 40)
    refused: list[Any] = [AddFilters("conv1"), ControlRun("stop"), key]
    allowed: list[Any] = [InspectLayer("conv1"), SendHistory()]
    server = Server(
        *(Request(str(i), body) for i, body in enumerate([*refused, *allowed])),
        Request("plan", AddFilters("conv1"), dry_run=True),
        Request("state", ControlRun("send_state")),
        sender=OBSERVER,
    )
    sent: list[RequestSender] = []
    replied: list[tuple[str, str]] = []
    queue = RequestQueue(
        server,  # type: ignore[arg-type]
        on_reply=lambda sender, request, reply: replied.append(
            (sender.key.name if sender else "", type(reply).__name__)
        ),
    )
    queue.receive(sent.append)
    assert [reply.id for reply in server.replies] == ["0", "1", "2"]
    assert all("'ann' only observes" in reply.reason for reply in server.replies)  # type: ignore[union-attr]
    queue.handle(done, lambda _: True)
    assert [reply.id for reply in server.replies[3:]] == ["3", "4", "plan"]
    assert sent == [OBSERVER]
    assert replied == [("ann", "Refused")] * 3 + [("ann", "Done")] * 3


def test_every_reply_is_reported_with_its_sender() -> None:
    reported: list[tuple[RequestSender, str, str]] = []
    queue = RequestQueue(
        Server(Request("theirs", AddFilters("conv1"))),  # type: ignore[arg-type]
        on_reply=lambda sender, request, reply: reported.append(
            (sender, request.id, type(reply).__name__)
        ),
    )
    queue.receive(lambda _: None)
    own = queue.submit(ControlRun("pause"))
    queue.handle(done, lambda request: isinstance(request.body, ControlRun))
    queue.refuse_all("the training has ended", 3)
    assert reported == [(RequestSender(b"", SCRIPT), own.id, "Done"), (OWNER, "theirs", "Refused")]


def test_a_pending_request_of_a_revoked_key_is_not_carried_out() -> None:
    """An edit that waited for the end of a validation was applied after its key was revoked."""
    bob = AccessKey("bob", "operator", "b" * 40)
    ring = KeyRing("k" * 40)
    ring.add(bob)
    server = Server(Request("id", AddFilters("conv1")), sender=RequestSender(b"client", bob))
    queue = RequestQueue(server, AccessKeyCommands(ring, publisher=None))  # type: ignore[arg-type]
    queue.receive(lambda _: None)
    ring.revoke("bob")
    own = queue.submit(AddFilters("conv2"))
    queue.handle(done, lambda _: True)
    [refusal] = server.replies
    assert isinstance(refusal, Refused)
    assert "'bob' was revoked" in refusal.reason
    assert own.reply == Done(own.id)
