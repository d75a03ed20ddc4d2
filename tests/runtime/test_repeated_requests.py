"""A request that arrives twice is carried out once."""

from __future__ import annotations

from revacnn_lightning import AddFilters, ControlRun
from revacnn_lightning.protocol.messages import Done, Reply, Request
from revacnn_lightning.protocol.requests import InspectLayer, ListKeys, RequestBody, SendHistory
from revacnn_lightning.runtime import repeated_requests
from revacnn_lightning.runtime.repeated_requests import RepeatedRequests

ONE, OTHER = b"one client", b"another client"


class Clients:
    """Sends requests of two clients, and collects the replies."""

    def __init__(self) -> None:
        self.repeated = RepeatedRequests()
        self.replies: list[tuple[bytes, Reply]] = []

    def send(self, body: RequestBody, id: str = "id", client: bytes = ONE, **options: bool):
        def receive(reply: Reply) -> None:
            self.replies.append((client, reply))

        return self.repeated.admit(client, Request(id, body, **options), receive)


def test_the_second_gets_the_reply_to_the_first():
    clients = Clients()
    reply = clients.send(AddFilters("conv1"))
    assert reply is not None
    reply(Done("id", "added"))
    assert clients.send(AddFilters("conv1")) is None
    assert clients.replies == [(ONE, Done("id", "added"))] * 2


def test_a_repetition_waits_until_the_first_is_carried_out():
    clients = Clients()
    reply = clients.send(AddFilters("conv1"))
    assert clients.send(AddFilters("conv1"), client=OTHER) is None  # after it connected again
    assert clients.replies == []
    assert reply is not None
    reply(Done("id"))
    assert clients.replies == [(ONE, Done("id")), (OTHER, Done("id"))]


def test_an_id_of_another_request_of_the_same_client_is_refused():
    clients = Clients()
    clients.send(AddFilters("conv1"))
    assert clients.send(AddFilters("conv2")) is None
    [(_, refusal)] = clients.replies
    assert "was used for another request" in refusal.reason


def test_clients_that_count_their_requests_do_not_disturb_each_other():
    clients = Clients()
    assert clients.send(AddFilters("conv1"), "1") is not None
    assert clients.send(AddFilters("conv2"), "1", OTHER) is not None


def test_plans_and_inspections_may_be_repeated():
    clients = Clients()
    for _ in range(2):
        assert clients.send(AddFilters("conv1"), dry_run=True) is not None
        assert clients.send(InspectLayer("conv1")) is not None


def test_histories_and_lists_of_keys_are_not_kept():
    """A history has megabytes; a list would go to whoever repeats the owner's request."""
    clients = Clients()
    for _ in range(2):
        assert clients.send(SendHistory()) is not None
        assert clients.send(ListKeys(), "list") is not None
    assert not clients.repeated._first


def test_few_requests_are_remembered(monkeypatch):
    monkeypatch.setattr(repeated_requests, "REMEMBERED", 3)
    monkeypatch.setattr(repeated_requests, "MAX_REPETITIONS", 2)
    clients = Clients()
    for index in range(10):
        assert clients.send(ControlRun("pause"), str(index)) is not None
    assert list(clients.repeated._first) == ["7", "8", "9"]
    for _ in range(3):
        assert clients.send(ControlRun("pause"), "9") is None
    [(_, refusal)] = clients.replies
    assert "pending already" in refusal.reason
