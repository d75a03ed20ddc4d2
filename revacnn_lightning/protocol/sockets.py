"""The four ends of the wire. The only file that imports zmq.

====================  ========================  =========================================
training side         viewer side               carries
====================  ========================  =========================================
`Publisher` (XPUB)    `Subscriber` (SUB)        telemetry to everybody who listens
`RequestServer`       `Requester` (DEALER)      requests, and the reply to who asked
(ROUTER)
====================  ========================  =========================================

Nothing here ever waits: sends drop or fail at once, receives take what has arrived. libzmq's
own inbox is the queue, so the training process needs no thread and no lock.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import zmq

from revacnn_lightning.errors import ConnectionFileError, ProtocolError
from revacnn_lightning.protocol.encoding import decode, encode, request_id
from revacnn_lightning.protocol.messages import Message, Refused, Request

__all__ = ["Keys", "Publisher", "RequestServer", "Requester", "Subscriber"]

log = logging.getLogger(__name__)

# A slow viewer may fall this many messages behind before messages are dropped for it. Small: one
# message can hold 400 kB, and old telemetry is worth nothing.
SEND_QUEUE = 8
RECEIVE_QUEUE = 256
MAX_REQUEST_BYTES = 2**20
# pyzmq's enumerations combine in Python, which costs as much as sending: here they are integers.
NOW = int(zmq.NOBLOCK)
NOW_AND_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
EVENTS = int(zmq.EVENTS)
ARRIVED = int(zmq.POLLIN)
# Frames from here on are handed over instead of copied.
LARGE_FRAME = 64 * 1024
# Requests taken per batch boundary, so that a flood of them cannot stop the training.
MAX_REQUESTS_PER_DRAIN = 32
# Joining and leaving listeners taken note of per batch, likewise.
MAX_SUBSCRIPTIONS_PER_LOOK = 32
SUBSCRIBE, UNSUBSCRIBE = b"\x01", b"\x00"
# Telemetry messages taken per poll: several seconds of a fast training.
MAX_MESSAGES_PER_POLL = 1024


class Keys(NamedTuple):
    """A CURVE key pair, Z85."""

    public: str
    secret: str

    @classmethod
    def generate(cls) -> Keys:
        public, secret = zmq.curve_keypair()
        return cls(public.decode(), secret.decode())


class _Socket:
    """What all four ends share: a context of their own, CURVE, closing without waiting."""

    def __init__(self, kind: int) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(kind)
        self._socket.linger = 0
        self.endpoint = ""

    def _serve(self, endpoint: str, keys: Keys) -> None:
        """Listen; an endpoint that ends in ``:0`` takes any free port. CURVE comes before bind."""
        self._socket.curve_server = True
        self._socket.curve_publickey = keys.public.encode()
        self._socket.curve_secretkey = keys.secret.encode()
        if endpoint.endswith(":0"):
            endpoint = endpoint[:-1] + "*"
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise OSError(f"cannot listen on {endpoint}: {error}") from error
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def _join(self, endpoint: str, server_key: str) -> None:
        """Connect, with a key pair of one's own that lives as long as the socket.

        Raises:
            ConnectionFileError: the address or the key is not one.
        """
        own = Keys.generate()
        try:
            self._socket.curve_serverkey = server_key.encode()
        except zmq.ZMQError as error:
            self.close()
            raise ConnectionFileError(f"{server_key!r} is no CURVE key: {error}") from error
        self._socket.curve_publickey = own.public.encode()
        self._socket.curve_secretkey = own.secret.encode()
        # A forwarded port answers even when the far training is gone: notice, and reconnect.
        self._socket.heartbeat_ivl = 2_000  # ms
        self._socket.heartbeat_timeout = 10_000  # ms
        self._socket.reconnect_ivl_max = 2_000  # ms
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise ConnectionFileError(
                f"{endpoint!r} is no address to connect to: {error}"
            ) from error
        self.endpoint = endpoint

    def file_descriptor(self) -> int:
        """What an event loop waits on. Edge-triggered: receive until nothing is left first."""
        return int(self._socket.getsockopt(zmq.FD))

    def close(self, linger: float = 0.0) -> None:
        """Close, giving what is still queued ``linger`` seconds to leave. May be called again."""
        self._socket.close(linger=int(1000 * linger))
        self._context.term()


class Publisher(_Socket):
    """Broadcasts telemetry. A slow listener loses messages."""

    def __init__(self, endpoint: str, keys: Keys) -> None:
        super().__init__(zmq.XPUB)  # which tells who listens
        self._socket.sndhwm = SEND_QUEUE
        self._topics: set[bytes] = set()  # that anybody listens to
        self._serve(endpoint, keys)

    def has_subscribers(self) -> bool:
        """Whether anybody listens now. A listener that hangs does; one that was killed does not."""
        for _ in range(MAX_SUBSCRIPTIONS_PER_LOOK):
            if not int(self._socket.get(EVENTS)) & ARRIVED:
                break
            said = self._socket.recv(NOW)
            if said[:1] == SUBSCRIBE:
                self._topics.add(said[1:])
            elif said[:1] == UNSUBSCRIBE:
                self._topics.discard(said[1:])
        return bool(self._topics)

    def publish(self, message: Message) -> None:
        """Send to whoever listens now. Arrays must not be changed afterwards: they are not copied.

        Raises:
            OSError: libzmq refused; the message is lost.
        """
        *frames, last = encode(message)
        send = self._socket.send
        for frame in frames:
            send(frame, NOW_AND_MORE, copy=_size(frame) < LARGE_FRAME)
        send(last, NOW, copy=_size(last) < LARGE_FRAME)


class RequestServer(_Socket):
    """Takes the requests that have arrived, and answers each to who asked."""

    def __init__(self, endpoint: str, keys: Keys) -> None:
        super().__init__(zmq.ROUTER)
        self._socket.maxmsgsize = MAX_REQUEST_BYTES
        self._socket.rcvhwm = RECEIVE_QUEUE
        self._serve(endpoint, keys)

    def receive(self) -> Iterator[tuple[bytes, Request]]:
        """The requests that have arrived, as (who asked, request); malformed ones are refused."""
        for _ in range(MAX_REQUESTS_PER_DRAIN):
            if not int(self._socket.get(EVENTS)) & ARRIVED:  # cheaper than to try, and fail
                return
            try:
                client, *frames = self._socket.recv_multipart(flags=zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                message = decode(frames)
                if not isinstance(message, Request):
                    raise ProtocolError("expected a request")
            except ProtocolError as error:
                log.warning("Refused a request that cannot be understood: %s", error)
                self.reply(client, Refused(id=request_id(frames), reason=str(error)))
                continue
            yield client, message

    def reply(self, client: bytes, reply: Message) -> None:
        """Send a reply; a client that has gone, or does not read, simply misses it."""
        try:
            self._socket.send_multipart([client, *encode(reply)], flags=zmq.NOBLOCK)
        except zmq.Again:
            log.warning("A viewer does not read its replies; dropped a %s", type(reply).__name__)


class Subscriber(_Socket):
    """Receives telemetry."""

    def __init__(self, endpoint: str, server_key: str) -> None:
        super().__init__(zmq.SUB)
        self._socket.rcvhwm = RECEIVE_QUEUE
        self._socket.subscribe(b"")
        self._join(endpoint, server_key)

    def poll(self) -> Iterator[Message]:
        """What has arrived since the last call, oldest first. Never waits."""
        yield from _receive(self._socket)


class Requester(_Socket):
    """Sends requests and receives the replies to them."""

    def __init__(self, endpoint: str, server_key: str) -> None:
        super().__init__(zmq.DEALER)
        self._join(endpoint, server_key)

    def send(self, request: Request) -> None:
        """Queue a request; it leaves when the training is reachable.

        Raises:
            ProtocolError: too many requests wait already; the training is not reachable.
        """
        try:
            self._socket.send_multipart(encode(request), flags=zmq.NOBLOCK)
        except zmq.Again as error:
            raise ProtocolError("the training cannot be reached; too many requests wait") from error

    def poll(self) -> Iterator[Message]:
        """The replies that have arrived since the last call. Never waits."""
        yield from _receive(self._socket)


def _size(frame: Any) -> int:
    """Of a frame, in bytes."""
    return frame.nbytes if hasattr(frame, "nbytes") else len(frame)


def _receive(socket: zmq.Socket[bytes]) -> Iterator[Message]:
    for _ in range(MAX_MESSAGES_PER_POLL):
        try:
            frames = socket.recv_multipart(flags=zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return
        try:
            message = decode([frame.buffer for frame in frames])
        except ProtocolError as error:
            log.warning("Ignored a message that cannot be understood: %s", error)
            continue
        if message is not None:
            yield message
