"""A key that floods a run loses its own connections for a while, and nobody else loses anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import zmq

from revacnn_lightning.protocol import run_sockets
from revacnn_lightning.protocol.access_keys import KeyRing
from revacnn_lightning.protocol.messages import Request
from revacnn_lightning.protocol.requests import Undo
from revacnn_lightning.protocol.sockets import Keys, Publisher, Requester, RequestServer, Subscriber
from tests.manual_clock import ManualClock
from tests.protocol.key_pairs import ANN, OWNER, make_ring
from tests.protocol.test_sockets import STATUS, until


@pytest.fixture
def ring() -> KeyRing:
    return make_ring()


@pytest.fixture
def publisher(keys: Keys, ring: KeyRing, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setattr(run_sockets, "SUBSCRIPTION_BURST", 20.0)
    end = Publisher("tcp://127.0.0.1:0", keys, ring)
    end._clock = ManualClock()
    yield end
    end.close()


def flood(publisher: Publisher, keys: Keys, is_over: Callable[[], bool]) -> None:
    """Send subscriptions until ``is_over`` returns True, as a new client of ann."""
    hostile = Subscriber(publisher.endpoint, keys.public, ANN)
    for index in range(300):
        hostile._socket.setsockopt(zmq.SUBSCRIBE, b"t%d" % index)
    until(lambda: (publisher.has_subscribers(), is_over())[1])
    hostile.close()


def is_served(publisher: Publisher, subscriber: Subscriber) -> bool:
    publisher.has_subscribers()
    publisher.publish(STATUS)
    return STATUS in list(subscriber.poll())


def test_one_key_that_floods_subscriptions_blinded_every_other_viewer(
    publisher: Publisher, keys: Keys, caplog: pytest.LogCaptureFixture
):
    """Telemetry paused for all, twice as long each time, and nothing said whose key it was."""
    owner, ann = (Subscriber(publisher.endpoint, keys.public, k) for k in (OWNER, ANN))
    for one in (owner, ann):
        until(lambda one=one: is_served(publisher, one))
    for count, seconds in ((1, 1), (2, 2)):
        flood(publisher, keys, lambda count=count: len(caplog.messages) == count)
        assert caplog.messages[-1] == (
            "A viewer with the key 'ann' (127.0.0.1) sends too many subscriptions: no telemetry "
            f"for this key for {seconds} s, then it attaches again by itself"
        )
        list(owner.poll())
        list(ann.poll())
        until(lambda: is_served(publisher, owner))  # while the clock stands still
        for _ in range(20):
            assert not is_served(publisher, ann)
        assert not ann.is_key_refused()
        publisher._clock.now += seconds  # type: ignore[attr-defined]
        until(lambda: is_served(publisher, ann))
    owner.close()
    ann.close()


def test_what_a_client_had_subscribed_to_is_no_flood_when_it_disconnects(
    publisher: Publisher, keys: Keys, caplog: pytest.LogCaptureFixture
):
    """libzmq reports each subscription of a client that is gone, without its key."""
    owner, ann = (Subscriber(publisher.endpoint, keys.public, k) for k in (OWNER, ANN))
    for index in range(18):
        ann._socket.setsockopt(zmq.SUBSCRIBE, b"status"[: index % 6 + 1] + b"x" * (index // 6))
    until(lambda: (publisher.has_subscribers(), b"statu" in publisher._topics)[1])
    ann.close()
    until(lambda: (publisher.has_subscribers(), publisher._topics == {b""})[1])
    until(lambda: is_served(publisher, owner))
    assert caplog.messages == []
    owner.close()


@pytest.mark.parametrize(
    ("frames", "flood_of"),
    [
        ([b"request"] + [b"x"] * 50, "requests of too many frames"),
        ([b"request", b"x" * 30_000], "too large requests"),
    ],
)
def test_one_key_that_floods_requests_kept_every_other_viewer_waiting(
    keys: Keys,
    ring: KeyRing,
    caplog: pytest.LogCaptureFixture,
    frames: list[bytes],
    flood_of: str,
):
    server = RequestServer("tcp://127.0.0.1:0", keys, ring)
    server._clock = ManualClock()
    owner, ann = (Requester(server.endpoint, keys.public, k) for k in (OWNER, ANN))
    for _ in range(64):
        ann._socket.send_multipart(frames)
    until(lambda: (list(server.receive()), "sends" in caplog.text)[1])
    assert f"with the key 'ann' (127.0.0.1) sends {flood_of}" in caplog.text
    owner.send(Request("mine", Undo()))
    [(sender, request)] = until(lambda: list(server.receive()))
    assert (sender.key.name, request.id) == ("owner", "mine")
    owner.close()
    ann.close()
    server.close()
