"""The sockets of a viewer: `Subscriber` for telemetry, `Requester` for requests."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.base_socket import EVENTS, POLLIN, BaseSocket, Keys
from revacnn_lightning.protocol.encoding import MAX_BUFFER_BYTES, MAX_REQUEST_BYTES, decode, encode
from revacnn_lightning.protocol.messages import Message, Request

__all__ = ["Requester", "Subscriber"]

log = logging.getLogger(__name__)

RECEIVE_QUEUE = 256
MONITOR_SECONDS = 0.02  # between two inspections: a page requests the state twenty times per frame
MONITORED = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
# Telemetry messages received per poll: several seconds of a fast training.
MAX_MESSAGES_PER_POLL = 1024


class _ConnectionMonitor:
    """Observes whether a socket is connected, from libzmq's events.

    Connected means that the run has proved its key: a forwarded port accepts any connection.

    Attributes:
        connection_count: how often the socket has connected so far.
        is_key_refused: whether the run has refused the key of this client.
    """

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self.connection_count = 0
        self._socket = socket
        self._events = socket.get_monitor_socket(MONITORED)
        self._disconnected_since: float | None = time.monotonic()
        self.is_key_refused = False
        self._updated_at = float("-inf")

    def update(self) -> None:
        """Receive the events, unless that was just done: libzmq waits if nobody does."""
        now = time.monotonic()
        if now - self._updated_at < MONITOR_SECONDS:
            return
        self._updated_at = now
        while int(self._events.get(EVENTS)) & POLLIN:
            event = recv_monitor_message(self._events, zmq.NOBLOCK)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._disconnected_since, self.is_key_refused = None, False
                self.connection_count += 1
                continue
            self.is_key_refused |= event == zmq.EVENT_HANDSHAKE_FAILED_AUTH
            if self._disconnected_since is None:
                self._disconnected_since = time.monotonic()

    def seconds_disconnected(self) -> float:
        self.update()
        since = self._disconnected_since
        return 0.0 if since is None else time.monotonic() - since

    def close(self) -> None:
        self._socket.disable_monitor()
        self._events.close(linger=0)


class _ViewerSocket(BaseSocket):
    """A socket that is connected to a run.

    Args:
        endpoint: the address of the run's socket.
        server_key: public key of the run.
        keys: the key pair of this client; None generates one, which a run admits only if it admits
            every client that has its server key.

    Raises:
        ConnectionFileError: the address or a key is invalid.
    """

    def __init__(
        self, kind: int, endpoint: str, server_key: str, keys: Keys | None, **options: Any
    ) -> None:
        super().__init__(kind)
        for name, value in options.items():
            setattr(self._socket, name, value)
        self._monitor = _ConnectionMonitor(self._socket)
        self._closing.callback(self._monitor.close)
        self._connect(endpoint, server_key, keys)

    def poll(self) -> Iterator[Message]:
        """Yield the messages that have arrived since the last call, oldest first."""
        self._monitor.update()
        yield from _receive(self._socket)

    def is_key_refused(self) -> bool:
        """Return whether the run has refused this client's key. The socket does not try again."""
        self._monitor.update()
        return self._monitor.is_key_refused


class Subscriber(_ViewerSocket):
    """Receives telemetry. See `_ViewerSocket` for the arguments.

    It has no heartbeats: libzmq reads none while the queue is full, connects again, and then aborts
    the process (zeromq/libzmq#3937). Call `reconnect` when the `Requester` has lost its connection.
    """

    has_heartbeats = False

    def __init__(self, endpoint: str, server_key: str, keys: Keys | None = None) -> None:
        super().__init__(
            zmq.SUB, endpoint, server_key, keys, rcvhwm=RECEIVE_QUEUE, maxmsgsize=MAX_BUFFER_BYTES
        )
        self._socket.subscribe(b"")

    def reconnect(self) -> None:
        """Replace a connection that may be dead. Messages that have not been received are lost."""
        self._socket.disconnect(self.endpoint)
        self._socket.connect(self.endpoint)


class Requester(_ViewerSocket):
    """Sends requests and receives the replies to them. See `_ViewerSocket` for the arguments."""

    def __init__(self, endpoint: str, server_key: str, keys: Keys | None = None) -> None:
        # Without a limit, replies never keep libzmq from reading heartbeats.
        super().__init__(zmq.DEALER, endpoint, server_key, keys, rcvhwm=0)

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

    def seconds_disconnected(self) -> float:
        """Return for how long the run has been unreachable, in seconds; 0 if it is reachable."""
        return self._monitor.seconds_disconnected()

    @property
    def connection_count(self) -> int:
        """How often the socket has connected to the run: more than once after an interruption."""
        return self._monitor.connection_count


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
