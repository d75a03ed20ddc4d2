"""The sockets of a run: `Publisher` for telemetry, `RequestServer` for requests.

Whoever has the key may send whatever it likes to them. What that can cost the training is limited:
the size and the number of messages that libzmq keeps, and how many are received per second.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import zmq

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.access_keys import KeyRing
from revacnn_lightning.protocol.authenticator import USER_ID
from revacnn_lightning.protocol.base_socket import (
    EVENTS,
    NOBLOCK,
    NOBLOCK_MORE,
    POLLIN,
    Keys,
)
from revacnn_lightning.protocol.encoding import (
    MAX_REQUEST_BYTES,
    TOPICS,
    decode,
    encode,
    request_id,
)
from revacnn_lightning.protocol.flood_protected_socket import FloodDisconnectingSocket
from revacnn_lightning.protocol.messages import Message, Refused, Request
from revacnn_lightning.protocol.rate_limit import ClientBuckets, RateLimitedLog, TokenBucket
from revacnn_lightning.protocol.requests import ControlRun
from revacnn_lightning.protocol.senders import RequestSender, connection_property

__all__ = ["Publisher", "RequestServer"]

log = logging.getLogger(__name__)

# Messages that a slow viewer may lag behind before further ones are dropped for it. Few, because a
# message can hold 400 kB and old telemetry is useless.
SEND_QUEUE = 12
REPLY_QUEUE = 64  # of each client; a reply can be a structure of 200 kB

# libzmq disconnects a client that sends a larger frame. A subscription is shorter than a topic; the
# messages of the handshake, which the limit also applies to, have up to 400 bytes.
MAX_SUBSCRIPTION_BYTES = 1024
ENCRYPTION_BYTES = 33  # that CURVE adds to a frame
REQUEST_FRAMES = 2  # topic and header; longer messages are discarded
MAX_SURPLUS_FRAMES = 32  # of each key; more are a flood, which libzmq keeps in memory
# Received per second, of each key, and at a time. More is a flood, of which libzmq keeps up to
# `REQUEST_QUEUE` requests of each client in memory. A picture of 320×320 takes 0.3 MB.
BYTE_RATE, BYTE_BURST = 2.0**19, 2.0**20
# Messages that libzmq receives in advance, of each client. Subscriptions: any number, because a
# full queue lets a client abort the process (see `forwarder`); a flood of them ends at the next
# batch. Requests: more than a viewer sends in a long compilation, because libzmq answers no
# heartbeat while the queue is full.
SUBSCRIPTION_QUEUE, REQUEST_QUEUE = 0, 1_024

# Received per batch boundary, so that a flood cannot stop training.
MAX_SUBSCRIPTIONS_PER_CALL = 288  # more than `SUBSCRIPTION_BURST`: one batch notices a flood
MAX_REQUESTS_PER_CALL = 32
# Received per second, of all clients; what exceeds this waits in libzmq. A request costs about
# 50 µs, so all of them cost about 0.5 % of the time.
REQUEST_RATE, REQUEST_BURST = 80.0, 256.0
# Received per second, of each client; what exceeds this is refused. At a time, more than a client
# queues (1,000): a viewer repeats requests during a long compilation, when none is received.
CLIENT_RATE, CLIENT_BURST = 50.0, 2_048.0
STATE_COST, REFUSAL_COST = 5.0, 2.0  # requests that one for the state and a malformed one count as
# A viewer subscribes once. More changes per second, of each key, are a flood.
SUBSCRIPTION_RATE, SUBSCRIPTION_BURST = 20.0, 256.0
SUBSCRIBE, UNSUBSCRIBE = b"\x01", b"\x00"


class Publisher(FloodDisconnectingSocket):
    """Sends telemetry to all subscribers. A slow subscriber loses messages.

    Args:
        endpoint: the address to listen on.
        keys: the key pair of the run.
        ring: the keys that may connect; None admits clients that know the public one of ``keys``.
    """

    def __init__(self, endpoint: str, keys: Keys, ring: KeyRing | None = None) -> None:
        super().__init__(zmq.XPUB, keys, ring)  # unlike PUB, it receives subscriptions
        self._topics: set[bytes] = set()  # with at least one subscriber
        self._listen(endpoint)

    def has_subscribers(self) -> bool:
        """Receive subscriptions, and return whether any client is subscribed.

        A client that hangs counts, and one that has exited does not.
        """
        if not self._is_open():
            return False
        for _ in range(MAX_SUBSCRIPTIONS_PER_CALL):
            if not int(self._socket.get(EVENTS)) & POLLIN:
                break
            event = self._socket.recv(NOBLOCK, copy=False)
            # What a client that disconnects had subscribed to arrives without the key.
            client = connection_property(event, USER_ID)
            if client and not self._changes.try_take(client.encode()):
                self._pause(event, "too many subscriptions", "telemetry")
                return False
            self._receive_subscription(event.bytes)
        return bool(self._topics)

    @property
    def had_subscribers_when_checked(self) -> bool:
        """What `has_subscribers` returned when it was last called."""
        return bool(self._topics)

    def publish(self, message: Message) -> None:
        """Send a copy of a message to all subscribers; see `publish_frames`."""
        self.publish_frames(encode(message))

    def publish_frames(self, frames: Sequence[Any]) -> None:
        """Send a copy of the frames of a message to all subscribers.

        To send without a copy, pyzmq would start a thread that never ends.

        Raises:
            zmq.ZMQError: libzmq cannot send it; the message is lost.
        """
        if not self._is_open():
            return
        *others, last = frames
        send = self._socket.send
        for frame in others:
            send(frame, NOBLOCK_MORE)
        send(last, NOBLOCK)

    def _listen(self, endpoint: str) -> None:
        self._changes = ClientBuckets(SUBSCRIPTION_RATE, SUBSCRIPTION_BURST, self._clock)
        self._socket.sndhwm = SEND_QUEUE
        self._socket.rcvhwm = SUBSCRIPTION_QUEUE
        self._socket.maxmsgsize = MAX_SUBSCRIPTION_BYTES
        self._authenticator = self._bind(endpoint, self._keys, self._ring, self._is_key_paused)

    def disconnect_ended_keys(self) -> None:
        """End the connections of keys that are not valid any more.

        libzmq cannot disconnect one client: all are disconnected, and those with a valid key
        connect again by themselves.
        """
        if self._reopen_time is None and self._ring.find_ended_keys(
            self._authenticator.seen_public_keys()
        ):
            self._disconnect_all()

    def _receive_subscription(self, event: bytes) -> None:
        prefix = event[1:]
        if not any(topic.startswith(prefix) for topic in TOPICS):
            return  # it can never match
        if event[:1] == SUBSCRIBE:
            self._topics.add(prefix)
        elif event[:1] == UNSUBSCRIBE:
            self._topics.discard(prefix)

    def _disconnect_all(self, seconds: float = 0.0) -> None:
        self._topics.clear()
        super()._disconnect_all(seconds)


class RequestServer(FloodDisconnectingSocket):
    """Receives requests, and replies to their clients.

    Args:
        endpoint: the address to listen on.
        keys: the key pair of the run.
        ring: the keys that may connect; None admits clients that know the public one of ``keys``.
    """

    def __init__(self, endpoint: str, keys: Keys, ring: KeyRing | None = None) -> None:
        super().__init__(zmq.ROUTER, keys, ring)
        self._requests = TokenBucket(REQUEST_RATE, REQUEST_BURST)
        self._requests_of = ClientBuckets(CLIENT_RATE, CLIENT_BURST)
        self._log = RateLimitedLog(log)
        self._listen(endpoint)

    def _listen(self, endpoint: str) -> None:
        self._socket.maxmsgsize = MAX_REQUEST_BYTES + ENCRYPTION_BYTES
        self._socket.rcvhwm = REQUEST_QUEUE
        self._socket.sndhwm = REPLY_QUEUE
        self._socket.router_mandatory = True  # otherwise libzmq drops replies without an error
        self._surplus_frames: dict[str, int] = {}
        self._bytes = ClientBuckets(BYTE_RATE, BYTE_BURST, self._clock)
        self._bind(endpoint, self._keys, self._ring, self._is_key_paused)

    def receive(self) -> Iterator[tuple[RequestSender, Request]]:
        """Yield (client, request) for each request that has arrived; refuse malformed ones.

        Requests of a client that sends too many, or whose key is not valid any more, are refused.
        Requests beyond `REQUEST_RATE` of all clients wait for a later call.
        """
        for _ in range(MAX_REQUESTS_PER_CALL):
            if not self._is_open():
                return
            if not int(self._socket.get(EVENTS)) & POLLIN:  # cheaper than a failing recv
                return
            if not self._requests.try_take():
                return
            try:
                (routing_id, *received), n_surplus = self._receive_frames()
            except zmq.Again:
                return
            request = self._read(routing_id.bytes, received)
            if request is not None:
                yield request
            if received:
                self._end_flood(received, n_surplus)

    def _end_flood(self, received: Sequence[zmq.Frame], n_surplus: int) -> None:
        """Count what a message has cost, and keep its key away if that is too much."""
        client = "" if self._ring.admits_all else connection_property(received[0], USER_ID)
        n = self._surplus_frames[client] = self._surplus_frames.get(client, 0) + n_surplus
        if n > MAX_SURPLUS_FRAMES:
            self._pause(received[0], "requests of too many frames", "requests")
        elif not self._bytes.try_take(client.encode(), sum(map(len, received))):
            self._pause(received[0], "too large requests", "requests")

    def reply(self, client: RequestSender, reply: Message) -> None:
        """Send a reply. It is dropped if the client is gone or does not read its replies."""
        self._send(client.routing_id, reply)

    def _send(self, client: bytes, reply: Message) -> None:
        if not self._is_open():
            return
        try:
            self._socket.send_multipart([client, *encode(reply)], flags=zmq.NOBLOCK)
        except zmq.Again:
            self._log.warning(
                client, "Dropped a %s reply: the viewer does not read it", type(reply).__name__
            )
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:  # the client is gone
                raise

    def _receive_frames(self) -> tuple[list[zmq.Frame], int]:
        """Receive a message, and keep at most one frame more than a request has.

        Returns:
            The frames, and the number of those that were not kept.
        """
        frames, n_surplus = [self._socket.recv(NOBLOCK, copy=False)], 0
        while self._socket.getsockopt(zmq.RCVMORE):
            frame = self._socket.recv(NOBLOCK, copy=False)
            if len(frames) <= 1 + REQUEST_FRAMES:
                frames.append(frame)
            else:
                n_surplus += 1
        return frames, n_surplus

    def _read(
        self, client: bytes, received: Sequence[zmq.Frame]
    ) -> tuple[RequestSender, Request] | None:
        """Return the request in these frames, and who has sent it; None if it was refused."""
        frames = [frame.bytes for frame in received]
        try:
            if not self._requests_of.try_take(client):
                raise ProtocolError(
                    f"this client has sent more than {CLIENT_RATE:.0f} requests per second; "
                    "send fewer, and repeat this one"
                )
            sender = self._find_sender(client, received)
            request = decode(frames)
            if not isinstance(request, Request):
                raise ProtocolError("expected a request message")
            if request.body == ControlRun("send_state"):
                self._requests_of.spend(client, STATE_COST - 1)
        except ProtocolError as error:
            self._requests.spend(REFUSAL_COST - 1)
            self._log.warning(
                client, "Refused a request of a viewer%s: %s", self._by(received), error
            )
            self._send(client, Refused(id=request_id(frames), reason=str(error)))
            return None
        return sender, request

    def _find_sender(self, routing_id: bytes, frames: Sequence[zmq.Frame]) -> RequestSender:
        """Return who has sent these frames.

        Raises:
            ProtocolError: its key is not valid any more.
        """
        key, address = self._origin(frames)
        if key is None:
            raise ProtocolError("the run does not know this key; copy its connection file again")
        if refusal := key.admission_refusal():
            raise ProtocolError(refusal)
        return RequestSender(routing_id, key, address)
