"""Sockets never wait, leak nothing, and reject clients without the key."""

from __future__ import annotations

import gc
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zmq

from revacnn_lightning.client.run import Run
from revacnn_lightning.errors import ConnectionFileError
from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.messages import (
    Applied,
    PlanSummary,
    Refused,
    Request,
    Status,
    Structure,
)
from revacnn_lightning.protocol.requests import AddFilters, ControlRun, Undo
from revacnn_lightning.protocol.sockets import Keys, Publisher, Requester, RequestServer, Subscriber
from tests.protocol.test_encoding import snapshot

STATUS = Status("run", "training", 1, 0, 0.0)


def until(condition: Callable[[], object], seconds: float = 240.0) -> object:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.01)
    raise AssertionError("did not happen in time")


def test_telemetry_arrives(publisher: Publisher, subscriber: Subscriber):
    def received() -> list[object]:
        publisher.publish(STATUS)
        return list(subscriber.poll())

    assert until(received)[0] == STATUS


def test_the_publisher_knows_whether_it_has_subscribers(publisher: Publisher, keys: Keys):
    assert not publisher.has_subscribers()
    one, two = (Subscriber(publisher.endpoint, keys.public) for _ in range(2))
    for each in (one, two):
        until(lambda each=each: (publisher.publish(STATUS), list(each.poll()))[1])
    one.close()
    time.sleep(0.2)
    assert publisher.has_subscribers()
    two.close()
    until(lambda: not publisher.has_subscribers())


def test_unknown_messages_of_a_subscriber_are_ignored(publisher: Publisher, keys: Keys):
    subscriber = Subscriber(publisher.endpoint, keys.public)
    until(publisher.has_subscribers)
    subscriber._socket.setsockopt(zmq.SUBSCRIBE, b"x" * 100)
    subscriber._socket.setsockopt(zmq.UNSUBSCRIBE, b"x" * 100)
    time.sleep(0.2)
    assert publisher.has_subscribers()
    subscriber.close()
    until(lambda: not publisher.has_subscribers())


def test_a_reply_is_sent_to_the_client_of_the_request(server: RequestServer, requester: Requester):
    requester.send(Request("mine", Undo()))
    [(client, request)] = until(lambda: list(server.receive()))
    assert request == Request("mine", Undo())
    server.reply(client, Refused("mine", "because"))
    assert until(lambda: list(requester.poll())) == [Refused("mine", "because")]


def test_a_reply_to_a_client_that_left_is_dropped(server: RequestServer, requester: Requester):
    requester.send(Request("mine", Undo()))
    [(client, _)] = until(lambda: list(server.receive()))
    requester.close()
    time.sleep(0.1)
    server.reply(client, Refused("mine", "because"))


def test_malformed_requests_are_refused_by_id(server: RequestServer, requester: Requester):
    requester._socket.send_multipart([b"request", b"\x81\xa2id\xa4mine"])
    requester._socket.send_multipart([b"noise"])
    received, replies = [], []

    def both_are_answered() -> bool:
        received.extend(server.receive())
        replies.extend(requester.poll())
        return len(replies) == 2

    until(both_are_answered)
    assert received == []
    assert replies[0].id == "mine"
    assert "malformed request" in replies[0].reason


def test_a_flood_of_requests_is_received_in_portions(server: RequestServer, requester: Requester):
    for index in range(100):
        requester.send(Request(str(index), ControlRun("resume")))
    time.sleep(0.5)  # so that more than a portion waits
    portions = []
    until(lambda: (portions.append(len(list(server.receive()))), sum(portions) == 100)[1])
    assert max(portions) <= 32


def test_a_viewer_that_never_reads_does_not_block_the_publisher(
    publisher: Publisher, subscriber: Subscriber
):
    until(lambda: (publisher.publish(STATUS), list(subscriber.poll()))[1])
    for _ in range(2000):  # 2,000 x 400 kB, far beyond any buffer
        publisher.publish(snapshot(np.zeros((4, 26_000), np.float32)))


def test_without_the_key_nothing_is_received(publisher: Publisher, keys: Keys):
    stranger = Subscriber(publisher.endpoint, Keys.generate().public)
    friend = Subscriber(publisher.endpoint, keys.public)
    until(lambda: (publisher.publish(STATUS), list(friend.poll()))[1])
    time.sleep(0.2)
    assert list(stranger.poll()) == []
    stranger.close()
    friend.close()


def test_an_unencrypted_client_is_rejected(server: RequestServer):
    context = zmq.Context()
    plain = context.socket(zmq.DEALER)
    plain.linger = 0
    plain.connect(server.endpoint)
    plain.send_multipart([b"request", b"\x80"])
    time.sleep(0.5)
    assert list(server.receive()) == []
    plain.close()
    context.term()


def test_garbage_on_the_port_is_ignored(server: RequestServer, requester: Requester):
    port = int(server.endpoint.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
    requester.send(Request("mine", Undo()))
    assert until(lambda: list(server.receive()))


def test_a_port_in_use_raises_an_error_that_names_it(publisher: Publisher, keys: Keys):
    with pytest.raises(OSError, match="cannot listen on"):
        Publisher(publisher.endpoint, keys)


def test_large_message_starts_no_thread(publisher: Publisher):
    before = set(threading.enumerate())
    publisher.publish(snapshot(np.zeros((9, 10_000), np.float32)))
    assert set(threading.enumerate()) == before


def test_closing_frees_the_port_and_may_be_repeated(keys: Keys):
    first = Publisher("tcp://127.0.0.1:0", keys)
    endpoint = first.endpoint
    first.close()
    first.close()
    second = Publisher(endpoint, keys)
    second.close()


def test_a_missed_structure_is_requested_again(
    publisher: Publisher, server: RequestServer, keys: Keys, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("revacnn_lightning.client.run_messages.STATE_REQUEST_SECONDS", 0.0)
    run = Run(Connection("run", publisher.endpoint, server.endpoint, keys.public))
    until(lambda: list(server.receive()))  # the first request for the state gets no reply
    values = np.zeros((1, 2), np.float32)
    until(lambda: (publisher.publish(snapshot(values)), run.poll())[1])
    [(_, request), *_] = until(lambda: list(server.receive()))
    assert request.body == ControlRun("send_state")
    run.close()


def test_apply_waits_for_the_edited_structure(
    publisher: Publisher, server: RequestServer, keys: Keys
):
    run = Run(Connection("run", publisher.endpoint, server.endpoint, keys.public))
    until(lambda: (publisher.publish(STATUS), run.poll())[1])  # until it is subscribed

    def training() -> list[int | None]:
        """Reply to two edits, and publish the structure some time after each reply."""
        versions: list[int | None] = []
        while len(versions) < 2:
            for client, request in server.receive():
                if isinstance(request.body, AddFilters):
                    versions.append(request.version)
                    now = len(versions)
                    server.reply(client, Applied(request.id, 1, now, PlanSummary("Add a filter")))
                    time.sleep(0.3)
                    publisher.publish(Structure("run", now, 1, "Net", []))
            time.sleep(0.01)
        return versions

    with ThreadPoolExecutor(1) as other:
        answers = other.submit(training)
        for _ in range(2):
            run.apply(AddFilters("conv1"))
        assert answers.result() == [None, 1]
    assert run.structure is not None
    assert run.structure.version == 2
    run.close()


@pytest.mark.parametrize("endpoint", ["", "nonsense", "tcp://"])
def test_an_invalid_address_is_a_connection_file_error(endpoint: str, keys: Keys):
    with pytest.raises(ConnectionFileError, match="not a valid address"):
        Run(Connection("run", "tcp://127.0.0.1:9", endpoint, keys.public))


def test_an_invalid_key_is_a_connection_file_error():
    with pytest.raises(ConnectionFileError, match="not a CURVE key"):
        Run(Connection("run", "tcp://127.0.0.1:9", "tcp://127.0.0.1:9", "short"))


def test_a_forgotten_client_in_a_reference_cycle_does_not_stop_the_process(
    publisher: Publisher, keys: Keys
):
    for _ in range(4):  # which object the collector finalizes first is not defined
        subscriber = Subscriber(publisher.endpoint, keys.public)
        context = subscriber._context
        subscriber.itself = subscriber  # type: ignore[attr-defined]
        collection = threading.Thread(target=gc.collect, daemon=True)
        del subscriber
        collection.start()
        collection.join(timeout=60)
        assert not collection.is_alive()
        assert context.closed
