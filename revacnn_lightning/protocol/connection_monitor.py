"""Whether a socket is connected to its peer, from libzmq's events."""

from __future__ import annotations

import time

import zmq
from zmq.utils.monitor import recv_monitor_message

__all__ = ["ConnectionMonitor"]

_CONNECTED = zmq.EVENT_HANDSHAKE_SUCCEEDED
# The peer is gone, or has the wrong key. Any other failure to connect is followed by a retry.
_DISCONNECTED = zmq.EVENT_DISCONNECTED


class ConnectionMonitor:
    """Observes the connection of a socket with one peer.

    A forwarded port accepts connections even if the peer is gone: connected means that the peer
    has proved its key.
    """

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self._events = socket.get_monitor_socket(_CONNECTED | _DISCONNECTED)
        self._disconnected_since: float | None = time.monotonic()

    def seconds_disconnected(self) -> float:
        """Return since when there is no connection, in seconds; 0 if there is one."""
        while self._events.poll(0):
            event = recv_monitor_message(self._events, zmq.NOBLOCK)["event"]
            if event == _CONNECTED:
                self._disconnected_since = None
            elif self._disconnected_since is None:
                self._disconnected_since = time.monotonic()
        since = self._disconnected_since
        return 0.0 if since is None else time.monotonic() - since

    def close(self) -> None:
        """Stop observing. May be called again."""
        if not self._events.closed:
            self._socket.disable_monitor()
            self._events.close(linger=0)
