"""Whoever has the key can send anything, but cannot starve the training."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import msgspec
import numpy as np
import pytest
import zmq

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol import flood_protected_socket, run_sockets
from revacnn_lightning.protocol.access_keys import SCRIPT, AccessKey, KeyRing
from revacnn_lightning.protocol.encoding import MAX_REQUEST_BYTES, encode
from revacnn_lightning.protocol.messages import Message, Refused, Request, Status
from revacnn_lightning.protocol.pictures import picture_requests
from revacnn_lightning.protocol.requests import ControlRun, InspectLayer, RemoveLayer, Undo
from revacnn_lightning.protocol.senders import RequestSender
from revacnn_lightning.protocol.sockets import Keys, Publisher, Requester, RequestServer, Subscriber
from tests.documentation import ROOT
from tests.manual_clock import ManualClock
from tests.protocol.test_sockets import STATUS, until


@pytest.fixture
def hostile(server: RequestServer, keys: Keys) -> Iterator[Requester]:
    end = Requester(server.endpoint, keys.public)
    yield end
    end.close()


@pytest.fixture
def honest(server: RequestServer, keys: Keys) -> Iterator[Requester]:
    end = Requester(server.endpoint, keys.public)
    yield end
    end.close()


def replies(server: RequestServer, client: Requester, count: int) -> list[Message]:
    """Serve, and return the first replies that the client receives."""
    found: list[Message] = []
    until(lambda: (list(server.receive()), found.extend(client.poll()), len(found) >= count)[2])
    return found


def assert_served(server: RequestServer, client: Requester) -> None:
    client.send(Request("mine", Undo()))
    received: list[Request] = []
    until(lambda: received.extend(request for _, request in server.receive()) or received)
    assert received == [Request("mine", Undo())]


def test_a_deeply_nested_request_costs_that_request_only(
    server: RequestServer, hostile: Requester, honest: Requester
):
    """It raised RecursionError in the training, which ended monitoring for everybody."""
    nested = b"\x82\xa1x" + b"\x91" * 30_000 + b"\xc0\xa2id\xa1q"
    hostile._socket.send_multipart([b"request", nested])
    [refusal] = replies(server, hostile, 1)
    assert isinstance(refusal, Refused)
    assert_served(server, honest)


def test_a_large_frame_is_never_received(
    server: RequestServer, hostile: Requester, honest: Requester
):
    assert_served(server, hostile)
    until(lambda: hostile.seconds_disconnected() == 0)
    hostile._socket.send_multipart([b"request", b"x" * (MAX_REQUEST_BYTES + 1)])
    until(lambda: (list(server.receive()), hostile.seconds_disconnected() > 0)[1])
    assert_served(server, honest)


def test_the_largest_request_is_received_and_a_larger_one_is_not_sent(
    server: RequestServer, honest: Requester
):
    """A larger one disconnected its client, which waited for the reply in vain."""

    def request_of(size: int) -> Request:
        empty = len(encode(Request("mine", RemoveLayer("x" * 40_000)))[1]) - 40_000
        return Request("mine", RemoveLayer("x" * (size - empty)))

    largest = request_of(MAX_REQUEST_BYTES)
    honest.send(largest)
    [(_, received)] = until(lambda: list(server.receive()))
    assert received == largest
    with pytest.raises(ProtocolError, match="divide it"):
        honest.send(request_of(MAX_REQUEST_BYTES + 1))


def test_of_a_message_of_many_frames_few_are_kept(server: RequestServer, hostile: Requester):
    hostile._socket.send_multipart([b"request", b"\x80"] + [b"x" * 30_000] * 40)
    until(lambda: int(server._socket.get(zmq.EVENTS)) & zmq.POLLIN)
    frames, n_surplus = server._receive_frames()
    assert (len(frames), n_surplus) == (4, 39)  # the client, and one more than a request has
    assert not int(server._socket.get(zmq.EVENTS)) & zmq.POLLIN


def test_a_message_of_many_frames_is_refused(server: RequestServer, hostile: Requester):
    header = msgspec.msgpack.encode(Request("mine", Undo()))
    hostile._socket.send_multipart([b"request", header] + [b""] * 100)
    [refusal] = replies(server, hostile, 1)
    assert (refusal.id, "2 frames" in refusal.reason) == ("mine", True)


@contextmanager
def served(keys: Keys, clients: int = 1) -> Iterator[tuple[RequestServer, list[Requester]]]:
    """Serve clients within the limits of now."""
    with ExitStack() as stack:
        server = RequestServer("tcp://127.0.0.1:0", keys)
        stack.callback(server.close)
        requesters = [Requester(server.endpoint, keys.public) for _ in range(clients)]
        for requester in requesters:
            stack.callback(requester.close)
        yield server, requesters


def test_a_client_that_floods_is_refused_and_others_are_not(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(run_sockets, "CLIENT_RATE", 0.001)
    monkeypatch.setattr(run_sockets, "CLIENT_BURST", 5)
    with served(keys, clients=2) as (server, [hostile, honest]):
        for index in range(20):
            hostile.send(Request(str(index), ControlRun("pause")))
        refusals = replies(server, hostile, 15)
        assert [reply.id for reply in refusals] == [str(index) for index in range(5, 20)]
        assert all("requests per second" in reply.reason for reply in refusals)
        assert_served(server, honest)


def test_a_request_for_the_state_counts_several_times(keys: Keys, monkeypatch: pytest.MonkeyPatch):
    """The reply may be a structure of a megabyte."""
    monkeypatch.setattr(run_sockets, "CLIENT_RATE", 0.001)
    monkeypatch.setattr(run_sockets, "CLIENT_BURST", 11)
    with served(keys) as (server, [client]):
        for index in range(4):
            client.send(Request(str(index), ControlRun("send_state")))
        assert [reply.id for reply in replies(server, client, 1)] == ["3"]


def test_what_all_clients_send_too_fast_waits(keys: Keys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_sockets, "REQUEST_RATE", 20.0)
    monkeypatch.setattr(run_sockets, "REQUEST_BURST", 3)
    with served(keys) as (server, [client]):
        for index in range(8):
            client.send(Request(str(index), ControlRun("pause")))
        portions: list[int] = []
        until(lambda: (portions.append(len(list(server.receive()))), sum(portions) == 8)[1])
        assert max(portions) <= 3


def test_what_a_viewer_queues_while_the_training_receives_nothing_is_not_refused(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
):
    """Open tabs repeat their requests during a long compilation; the next click was refused."""
    monkeypatch.setattr(run_sockets, "REQUEST_RATE", 1e9)
    monkeypatch.setattr(run_sockets, "CLIENT_RATE", 0.001)
    with served(keys) as (server, [client]):
        for index in range(1000):
            client.send(Request(str(index), InspectLayer("conv1")))
        received: list[tuple[bytes, Request]] = []
        until(lambda: (received.extend(server.receive()), len(received) == 1000)[1])
        assert list(client.poll()) == []


def test_a_dropped_reply_is_logged(
    server: RequestServer, hostile: Requester, caplog: pytest.LogCaptureFixture
):
    """libzmq dropped it without an error."""
    hostile._socket.rcvhwm = 10  # our own clients store all replies
    hostile._socket.disconnect(server.endpoint)
    hostile._socket.connect(server.endpoint)
    hostile.send(Request("mine", Undo()))
    [(client, _)] = until(lambda: list(server.receive()))
    reply = Refused("mine", "x" * 1_000_000)
    until(lambda: (server.reply(client, reply), "does not read it" in caplog.text)[1])


def test_a_flood_is_logged_a_few_times(
    server: RequestServer, hostile: Requester, caplog: pytest.LogCaptureFixture
):
    """There were 313,000 warnings."""
    with caplog.at_level(logging.WARNING):
        for _ in range(60):
            hostile._socket.send_multipart([b"request", b"\x1b[31m"])
        replies(server, hostile, 60)
    assert 1 <= len(caplog.messages) <= 3
    assert "\x1b" not in caplog.text


def test_nobody_could_tell_whose_malformed_requests_were_refused(
    keys: Keys, caplog: pytest.LogCaptureFixture
):
    owner, ann = Keys.generate(), Keys.generate()
    ring = KeyRing(owner.public)
    ring.add(AccessKey("ann", "observer", ann.public))
    server = RequestServer("tcp://127.0.0.1:0", keys, ring)
    client = Requester(server.endpoint, keys.public, ann)
    client._socket.send_multipart([b"request", b"junk"])
    replies(server, client, 1)
    assert caplog.messages[0].startswith(
        "Refused a request of a viewer with the key 'ann' (127.0.0.1): "
    )
    client.close()
    server.close()


# ---------------------------------------------------------------------- subscriptions


def test_a_long_subscription_is_refused_before_it_is_stored(publisher: Publisher, keys: Keys):
    """A subscription of 4 MB cost 460 MB, and one of 300 MB ended the process."""
    honest = Subscriber(publisher.endpoint, keys.public)
    until(publisher.has_subscribers)
    long = Subscriber(publisher.endpoint, keys.public)
    # Still longer ones end the client's process in some builds of libzmq.
    long._socket.setsockopt(zmq.SUBSCRIBE, b"s" * 20_000)
    for _ in range(20):
        until(lambda: (publisher.publish(STATUS), list(honest.poll()))[1])
        publisher.has_subscribers()
    assert publisher._topics == {b""}
    long.close()
    honest.close()


def test_subscriptions_to_unknown_topics_are_not_kept(publisher: Publisher, keys: Keys):
    subscriber = Subscriber(publisher.endpoint, keys.public)
    for topic in (b"weather", b"snapshots", b"snap", b"status"):
        subscriber._socket.setsockopt(zmq.SUBSCRIBE, topic)
    until(lambda: (publisher.has_subscribers(), b"status" in publisher._topics)[1])
    assert publisher._topics == {b"", b"snap", b"status"}
    subscriber.close()
    until(lambda: not publisher.has_subscribers())


def test_a_flood_of_subscriptions_disconnects_and_honest_viewers_return(
    keys: Keys, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(run_sockets, "SUBSCRIPTION_BURST", 20.0)
    monkeypatch.setattr(flood_protected_socket, "PAUSE_SECONDS", 0.05)
    publisher = Publisher("tcp://127.0.0.1:0", keys)
    honest, hostile = (Subscriber(publisher.endpoint, keys.public) for _ in range(2))
    until(lambda: (publisher.publish(STATUS), list(honest.poll()))[1])
    for index in range(300):
        hostile._socket.setsockopt(zmq.SUBSCRIBE, b"t%d" % index)
    until(lambda: (publisher.has_subscribers(), "too many subscriptions" in caplog.text)[1])
    hostile.close()
    later = Status("run", "training", 2, 0, 0.0)

    def received() -> bool:
        publisher.has_subscribers()
        publisher.publish(later)
        return later in list(honest.poll())

    until(received)
    honest.close()
    publisher.close()


def test_one_batch_notices_a_flood_of_subscriptions(keys: Keys, caplog: pytest.LogCaptureFixture):
    """Over eight batches, one took 25 MB of the memory of the training."""
    publisher = Publisher("tcp://127.0.0.1:0", keys)
    hostile = Subscriber(publisher.endpoint, keys.public)
    until(lambda: (publisher.has_subscribers(), bool(publisher._topics))[1])
    for index in range(2 * int(run_sockets.SUBSCRIPTION_BURST)):
        hostile._socket.setsockopt(zmq.SUBSCRIBE, b"t%d" % index)
    time.sleep(0.5)  # until all of them have arrived
    publisher.has_subscribers()
    assert "too many subscriptions" in caplog.text
    hostile.close()
    publisher.close()


def test_a_viewer_that_disconnects_with_pending_requests_does_not_abort_the_training():
    """With a full queue, libzmq ended the process: ``Assertion failed: !_io_error``."""
    command = [sys.executable, "-m", "tests.protocol.disconnected_client"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, int(run.stdout) > 0) == (0, True), run.stderr


def test_a_client_that_sends_too_many_frames_is_disconnected_and_honest_ones_return(
    keys: Keys, caplog: pytest.LogCaptureFixture
):
    """libzmq keeps a message of any number of frames: 8 seconds of them cost 2.3 GB."""
    with served(keys, clients=2) as (server, [hostile, honest]):
        clock = server._clock = ManualClock()
        assert_served(server, honest)
        hostile._socket.send_multipart([b"request"] + [b"x"] * 50)
        until(lambda: (list(server.receive()), "too many frames" in caplog.text)[1])
        hostile.close()
        honest.send(Request("waits", Undo()))
        assert list(server.receive()) == []
        server.reply(RequestSender(b"anyone", SCRIPT), Refused("late", ""))  # is dropped
        clock.now += 1.0
        arrived: list[Request] = []
        until(lambda: arrived.extend(request for _, request in server.receive()) or arrived)
        assert arrived == [Request("waits", Undo())]


def test_a_client_that_sends_too_many_bytes_is_disconnected(
    keys: Keys, caplog: pytest.LogCaptureFixture
):
    """libzmq keeps 1,024 requests of each client: those of four clients took 130 MB."""
    with served(keys) as (server, [hostile]):
        server._clock = ManualClock()
        for _ in range(64):
            hostile._socket.send_multipart([b"request", b"x" * 30_000])
        until(lambda: (list(server.receive()), "too large requests" in caplog.text)[1])


def test_three_pictures_in_a_row_are_no_flood(keys: Keys):
    requests = picture_requests(-1, np.zeros((320, 320, 3), np.uint8)) * 3
    with served(keys) as (server, [client]):
        for index, request in enumerate(requests):
            client.send(Request(str(index), request))
        received: list[tuple[RequestSender, Request]] = []
        until(lambda: (received.extend(server.receive()), len(received) == len(requests))[1])
