"""The sockets of a viewer: `Subscriber` for telemetry, `Requester` for requests."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import zmq
from zmq.utils.monitor import recv_monitor_message

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.base_socket import EVENTS, POLLIN, BaseSocket
from revacnn_lightning.protocol.encoding import MAX_BUFFER_BYTES, MAX_REQUEST_BYTES, decode, encode
from revacnn_lightning.protocol.messages import Message, Request

__all__ = ["Requester", "Subscriber"]

log = logging.getLogger(__name__)

RECEIVE_QUEUE = 256
# Telemetry messages received per poll: several seconds of a fast training.
MAX_MESSAGES_PER_POLL = 1024


class Subscriber(BaseSocket):
    """Receives telemetry."""

    def __init__(self, endpoint: str, server_key: str) -> None:
        super().__init__(zmq.SUB)
        self._socket.rcvhwm = RECEIVE_QUEUE
        self._socket.maxmsgsize = MAX_BUFFER_BYTES
        self._socket.subscribe(b"")
        self._connect(endpoint, server_key)

    def poll(self) -> Iterator[Message]:
        """Yield the messages that have arrived since the last call, oldest first."""
        yield from _receive(self._socket)


class _ConnectionMonitor:
    """Observes whether a socket is connected, from libzmq's events.

    Connected means that the run has proved its key: a forwarded port accepts any connection.

    Attributes:
        connections: how often the socket has connected so far.
    """

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self.connections = 0
        self._socket = socket
        events = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        self._events = socket.get_monitor_socket(events)
        self._disconnected_since: float | None = time.monotonic()

    def seconds_disconnected(self) -> float:
        while int(self._events.get(EVENTS)) & POLLIN:
            event = recv_monitor_message(self._events, zmq.NOBLOCK)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._disconnected_since = None
                self.connections += 1
            elif self._disconnected_since is None:
                self._disconnected_since = time.monotonic()
        since = self._disconnected_since
        return 0.0 if since is None else time.monotonic() - since

    def close(self) -> None:
        if not self._events.closed:
            self._socket.disable_monitor()
            self._events.close(linger=0)


class Requester(BaseSocket):
    """Sends requests and receives the replies to them."""

    def __init__(self, endpoint: str, server_key: str) -> None:
        super().__init__(zmq.DEALER)
        self._monitor = _ConnectionMonitor(self._socket)
        self._connect(endpoint, server_key)

    def send(self, request: Request) -> None:
        """Queue a request; it is sent as soon as the run is reachable.

        Raises:
            ProtocolError: the request is too large, or too many requests are queued, because the
                run is unreachable.
        """
        frames = encode(request)
        if (size := len(frames[1])) > MAX_REQUEST_BYTES:
            raise ProtocolError(
                f"the request has {size:,} bytes, and a run receives at most "
                f"{MAX_REQUEST_BYTES:,}; divide it into several requests"
            )
        try:
            self._socket.send_multipart(frames, flags=zmq.NOBLOCK)
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

    @property
    def connections(self) -> int:
        """How often the run has been reached so far: more than once after an interruption."""
        return self._monitor.connections

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
