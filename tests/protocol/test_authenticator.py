"""Which keys may connect, and what happens to open connections when a key ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import zmq

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.access_keys import AccessKey, KeyRing
from revacnn_lightning.protocol.authenticator import Authenticator, check_public_key
from revacnn_lightning.protocol.messages import Refused, Request
from revacnn_lightning.protocol.requests import Undo
from revacnn_lightning.protocol.sockets import Keys, Publisher, Requester, RequestServer, Subscriber
from tests.protocol.key_pairs import ANN, OWNER, make_ring
from tests.protocol.test_sockets import STATUS, until


@pytest.fixture
def ring() -> KeyRing:
    return make_ring()


@pytest.fixture
def guarded_publisher(keys: Keys, ring: KeyRing) -> Iterator[Publisher]:
    end = Publisher("tcp://127.0.0.1:0", keys, ring)
    yield end
    end.close()


@pytest.fixture
def guarded_server(keys: Keys, ring: KeyRing) -> Iterator[RequestServer]:
    end = RequestServer("tcp://127.0.0.1:0", keys, ring)
    yield end
    end.close()


def test_the_key_of_each_request_is_known(guarded_server: RequestServer, keys: Keys):
    clients = [Requester(guarded_server.endpoint, keys.public, own) for own in (OWNER, ANN)]
    for client in clients:
        client.send(Request("mine", Undo()))
    received: list[str] = []

    def both_have_arrived() -> bool:
        for sender, _ in guarded_server.receive():
            received.append(f"{sender.key.name}, {sender.key.role}, {sender.address}")
        return len(received) == 2

    until(both_have_arrived)
    assert sorted(received) == ["ann, observer, 127.0.0.1", "owner, owner, 127.0.0.1"]
    for client in clients:
        client.close()


def test_a_key_that_the_run_does_not_know_is_refused(
    guarded_server: RequestServer, guarded_publisher: Publisher, keys: Keys
):
    """The server key sufficed, which all files of a run contain."""
    requester = Requester(guarded_server.endpoint, keys.public)
    subscriber = Subscriber(guarded_publisher.endpoint, keys.public)
    requester.send(Request("mine", Undo()))
    until(lambda: requester.is_key_refused() and subscriber.is_key_refused())
    assert list(guarded_server.receive()) == []
    assert not guarded_publisher.has_subscribers()
    requester.close()
    subscriber.close()


def test_telemetry_of_a_revoked_key_ends_and_all_others_continue(
    guarded_publisher: Publisher, keys: Keys, ring: KeyRing
):
    owner, ann = (Subscriber(guarded_publisher.endpoint, keys.public, k) for k in (OWNER, ANN))
    for one in (owner, ann):
        until(lambda one=one: (guarded_publisher.publish(STATUS), list(one.poll()))[1])
    guarded_publisher.disconnect_ended_keys()
    assert guarded_publisher.has_subscribers()  # nobody was disconnected
    ring.revoke("ann")
    guarded_publisher.disconnect_ended_keys()
    until(ann.is_key_refused)
    list(owner.poll())
    until(lambda: (guarded_publisher.publish(STATUS), list(owner.poll()))[1])
    list(ann.poll())
    guarded_publisher.publish(STATUS)
    time.sleep(0.1)
    assert list(ann.poll()) == []
    assert guarded_publisher._authenticator.seen_public_keys() == [OWNER.public]
    owner.close()
    ann.close()


def test_a_request_of_a_revoked_key_is_refused_on_its_open_connection(
    guarded_server: RequestServer, keys: Keys, ring: KeyRing
):
    ann = Requester(guarded_server.endpoint, keys.public, ANN)
    ann.send(Request("before", Undo()))
    until(lambda: list(guarded_server.receive()))
    ring.revoke("ann")
    ann.send(Request("after", Undo()))
    received, replies = [], []
    until(
        lambda: (
            received.extend(guarded_server.receive()),
            replies.extend(ann.poll()),
            replies,
        )[2]
    )
    assert received == []
    assert isinstance(replies[0], Refused)
    assert "'ann' was revoked" in replies[0].reason
    ann.close()


def test_a_new_key_is_admitted_without_a_restart(
    guarded_server: RequestServer, keys: Keys, ring: KeyRing
):
    bob = Keys.generate()
    ring.add(AccessKey("bob", "operator", bob.public))
    client = Requester(guarded_server.endpoint, keys.public, bob)
    client.send(Request("mine", Undo()))
    [(sender, _)] = until(lambda: list(guarded_server.receive()))
    assert sender.key.name == "bob"
    client.close()


def test_a_viewer_connects_while_the_training_does_nothing(
    guarded_server: RequestServer, keys: Keys
):
    client = Requester(guarded_server.endpoint, keys.public, OWNER)
    until(lambda: client.seconds_disconnected() == 0)  # nobody calls the server
    client.close()


def test_the_thread_ends_with_the_socket(keys: Keys, ring: KeyRing):
    before = set(threading.enumerate())
    server = RequestServer("tcp://127.0.0.1:0", keys, ring)
    [thread] = set(threading.enumerate()) - before
    assert thread.daemon
    server.close()
    thread.join(60)
    assert not thread.is_alive()


def test_a_malformed_question_is_answered_with_no(ring: KeyRing):
    context = zmq.Context()
    authenticator = Authenticator(context, ring)
    plain = [b"1.0", b"1", b"revacnn", b"", b"", b"PLAIN", b"user"]
    short = [b"1.0", b"1", b"revacnn", b"", b"", b"CURVE", b"short"]
    for question in ([], [b"1.0"], plain, short):
        assert authenticator._reply(question)[2] == b"400"
    context.term()


def test_only_curve_keys_are_accepted():
    check_public_key(Keys.generate().public)
    for public in ("", "x", " " * 40, "ü" * 40, "\x00" * 40, "k" * 39):
        with pytest.raises(EditRefusedError, match="not a CURVE key"):
            check_public_key(public)
