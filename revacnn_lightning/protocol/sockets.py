"""The four sockets of the protocol. This is the only file that imports zmq.

====================  ========================  =========================================
training side         viewer side               carries
====================  ========================  =========================================
`Publisher` (XPUB)    `Subscriber` (SUB)        telemetry, to all viewers
`RequestServer`       `Requester` (DEALER)      requests, and each reply to its client
(ROUTER)
====================  ========================  =========================================

No method waits: sending drops the message or fails, receiving returns what has arrived. libzmq's
own queue is used, so the training process needs no thread and no lock.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import NamedTuple

import zmq
from zmq.utils.monitor import recv_monitor_message

from revacnn_lightning.errors import ConnectionFileError, ProtocolError
from revacnn_lightning.protocol import forked_ports
from revacnn_lightning.protocol.encoding import decode, encode, request_id
from revacnn_lightning.protocol.messages import Message, Refused, Request

__all__ = ["Keys", "Publisher", "RequestServer", "Requester", "Subscriber"]

log = logging.getLogger(__name__)

# Messages that a slow viewer may lag behind before further ones are dropped for it. Few, because a
# message can hold 400 kB and old telemetry is useless.
SEND_QUEUE = 8
RECEIVE_QUEUE = 256
MAX_REQUEST_BYTES = 2**20
# pyzmq combines its enumerations in Python, which costs as much as sending: use integers.
NOBLOCK = int(zmq.NOBLOCK)
NOBLOCK_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
EVENTS = int(zmq.EVENTS)
POLLIN = int(zmq.POLLIN)
# Requests received per batch boundary, so that a flood of them cannot stop training.
MAX_REQUESTS_PER_CALL = 32
# Subscriptions received per batch, for the same reason.
MAX_SUBSCRIPTIONS_PER_CALL = 32
SUBSCRIBE, UNSUBSCRIBE = b"\x01", b"\x00"
# Telemetry messages received per poll: several seconds of a fast training.
MAX_MESSAGES_PER_POLL = 1024


class Keys(NamedTuple):
    """A CURVE key pair, encoded in Z85."""

    public: str
    secret: str

    @classmethod
    def generate(cls) -> Keys:
        public, secret = zmq.curve_keypair()
        return cls(public.decode(), secret.decode())


class _Socket:
    """Common base: an own context, CURVE encryption, and closing without waiting."""

    def __init__(self, kind: int) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(kind)
        self._socket.linger = 0
        self.endpoint = ""
        self._port: int | None = None  # that it listens on

    def _bind(self, endpoint: str, keys: Keys) -> None:
        """Listen on an endpoint; one that ends in ``:0`` uses any free port.

        Raises:
            OSError: the port is in use, or the address is not one of this machine.
        """
        # The CURVE options must be set before binding.
        self._socket.curve_server = True
        self._socket.curve_publickey = keys.public.encode()
        self._socket.curve_secretkey = keys.secret.encode()
        if endpoint.endswith(":0"):
            endpoint = endpoint[:-1] + "*"
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise OSError(
                f"cannot listen on {endpoint}: {error}; choose another host or port"
            ) from error
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._port = int(self.endpoint.rpartition(":")[2])
        forked_ports.close_in_forked_processes(self._port)

    def _connect(self, endpoint: str, server_key: str) -> None:
        """Connect with a new key pair that is valid as long as the socket.

        Raises:
            ConnectionFileError: the address or the key is invalid.
        """
        keys = Keys.generate()
        try:
            self._socket.curve_serverkey = server_key.encode()
        except zmq.ZMQError as error:
            self.close()
            raise ConnectionFileError(
                f"{server_key!r} is not a CURVE key ({error}); copy the connection file again"
            ) from error
        self._socket.curve_publickey = keys.public.encode()
        self._socket.curve_secretkey = keys.secret.encode()
        # A forwarded port accepts connections even if the run is gone. Heartbeats detect that.
        self._socket.heartbeat_ivl = 2_000  # ms
        self._socket.heartbeat_timeout = 10_000  # ms
        self._socket.reconnect_ivl_max = 2_000  # ms
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise ConnectionFileError(
                f"{endpoint!r} is not a valid address ({error}); copy the connection file again"
            ) from error
        self.endpoint = endpoint

    def file_descriptor(self) -> int:
        """Return what an event loop waits on. Edge-triggered: receive all messages first."""
        return int(self._socket.getsockopt(zmq.FD))

    def close(self, linger: float = 0.0) -> None:
        """Close, and give queued messages ``linger`` seconds to leave. May be called again."""
        self._socket.close(linger=int(1000 * linger))
        self._context.term()
        if self._port is not None:
            forked_ports.release(self._port)
            self._port = None


class Publisher(_Socket):
    """Sends telemetry to all subscribers. A slow subscriber loses messages."""

    def __init__(self, endpoint: str, keys: Keys) -> None:
        super().__init__(zmq.XPUB)  # unlike PUB, it receives subscriptions
        self._socket.sndhwm = SEND_QUEUE
        self._topics: set[bytes] = set()  # with at least one subscriber
        self._bind(endpoint, keys)

    def has_subscribers(self) -> bool:
        """Return whether there is a subscriber: one that hangs counts, one that exited does not."""
        for _ in range(MAX_SUBSCRIPTIONS_PER_CALL):
            if not int(self._socket.get(EVENTS)) & POLLIN:
                break
            event = self._socket.recv(NOBLOCK)
            if event[:1] == SUBSCRIBE:
                self._topics.add(event[1:])
            elif event[:1] == UNSUBSCRIBE:
                self._topics.discard(event[1:])
        return bool(self._topics)

    def publish(self, message: Message) -> None:
        """Send a copy of a message to all subscribers.

        To send without a copy, pyzmq would start a thread that never ends.

        Raises:
            OSError: libzmq cannot send it; the message is lost.
        """
        *frames, last = encode(message)
        send = self._socket.send
        for frame in frames:
            send(frame, NOBLOCK_MORE)
        send(last, NOBLOCK)


class RequestServer(_Socket):
    """Receives requests, and sends each reply to the client of the request."""

    def __init__(self, endpoint: str, keys: Keys) -> None:
        super().__init__(zmq.ROUTER)
        self._socket.maxmsgsize = MAX_REQUEST_BYTES
        self._socket.rcvhwm = RECEIVE_QUEUE
        self._bind(endpoint, keys)

    def receive(self) -> Iterator[tuple[bytes, Request]]:
        """Yield (client, request) of all requests that have arrived; refuse malformed ones."""
        for _ in range(MAX_REQUESTS_PER_CALL):
            if not int(self._socket.get(EVENTS)) & POLLIN:  # cheaper than a failing recv
                return
            try:
                client, *frames = self._socket.recv_multipart(flags=zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                message = decode(frames)
                if not isinstance(message, Request):
                    raise ProtocolError("expected a request message")
            except ProtocolError as error:
                log.warning("Refused a malformed request: %s", error)
                self.reply(client, Refused(id=request_id(frames), reason=str(error)))
                continue
            yield client, message

    def reply(self, client: bytes, reply: Message) -> None:
        """Send a reply. A client that is gone or does not read its replies misses it."""
        try:
            self._socket.send_multipart([client, *encode(reply)], flags=zmq.NOBLOCK)
        except zmq.Again:
            log.warning(
                "Dropped a %s reply: the viewer does not read its replies", type(reply).__name__
            )


class Subscriber(_Socket):
    """Receives telemetry."""

    def __init__(self, endpoint: str, server_key: str) -> None:
        super().__init__(zmq.SUB)
        self._socket.rcvhwm = RECEIVE_QUEUE
        self._socket.subscribe(b"")
        self._connect(endpoint, server_key)

    def poll(self) -> Iterator[Message]:
        """Yield the messages that have arrived since the last call, oldest first."""
        yield from _receive(self._socket)


class _ConnectionMonitor:
    """Observes whether a socket is connected, from libzmq's events.

    Connected means that the run has proved its key: a forwarded port accepts any connection.
    """

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        events = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        self._events = socket.get_monitor_socket(events)
        self._disconnected_since: float | None = time.monotonic()

    def seconds_disconnected(self) -> float:
        while int(self._events.get(EVENTS)) & POLLIN:
            event = recv_monitor_message(self._events, zmq.NOBLOCK)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._disconnected_since = None
            elif self._disconnected_since is None:
                self._disconnected_since = time.monotonic()
        since = self._disconnected_since
        return 0.0 if since is None else time.monotonic() - since

    def close(self) -> None:
        if not self._events.closed:
            self._socket.disable_monitor()
            self._events.close(linger=0)


class Requester(_Socket):
    """Sends requests and receives the replies to them."""

    def __init__(self, endpoint: str, server_key: str) -> None:
        super().__init__(zmq.DEALER)
        self._monitor = _ConnectionMonitor(self._socket)
        self._connect(endpoint, server_key)

    def send(self, request: Request) -> None:
        """Queue a request; it is sent as soon as the run is reachable.

        Raises:
            ProtocolError: too many requests are queued, because the run is unreachable.
        """
        try:
            self._socket.send_multipart(encode(request), flags=zmq.NOBLOCK)
        except zmq.Again as error:
            raise ProtocolError(
                "the run is unreachable and too many requests are queued; attach to it again"
            ) from error

    def poll(self) -> Iterator[Message]:
        """Yield the replies that have arrived since the last call."""
        self._monitor.seconds_disconnected()  # libzmq waits if nobody takes its events
        yield from _receive(self._socket)

    def seconds_disconnected(self) -> float:
        """Return for how long the run has been unreachable, in seconds; 0 if it is reachable."""
        return self._monitor.seconds_disconnected()

    def close(self, linger: float = 0.0) -> None:
        self._monitor.close()
        super().close(linger)


def _receive(socket: zmq.Socket[bytes]) -> Iterator[Message]:
    for _ in range(MAX_MESSAGES_PER_POLL):
        try:
            frames = socket.recv_multipart(flags=zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return
        try:
            message = decode([frame.buffer for frame in frames])
        except ProtocolError as error:
            log.warning("Ignored a malformed message: %s", error)
            continue
        if message is not None:
            yield message
