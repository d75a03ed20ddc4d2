"""A socket that closes after a flood, because libzmq cannot disconnect one client."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence

import zmq

from revacnn_lightning.protocol.access_keys import AccessKey, KeyRing
from revacnn_lightning.protocol.authenticator import USER_ID
from revacnn_lightning.protocol.base_socket import BaseSocket, Keys
from revacnn_lightning.protocol.senders import (
    NO_TITLES,
    PEER_ADDRESS,
    connection_property,
    describe_address,
)

__all__ = ["FloodDisconnectingSocket"]

log = logging.getLogger(__name__)

PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 60.0


class FloodDisconnectingSocket(BaseSocket):
    """A socket that disconnects its clients after a flood, and keeps away the key that flooded it.

    Closing also frees what libzmq keeps of their messages. All clients connect again by themselves,
    immediately; those with the key that sent the flood are admitted after a pause. Each pause of a
    key is twice as long as the one before. Where the clients have no keys of their own, the socket
    stays closed for all of them.

    Args:
        kind: ZeroMQ's type of the socket.
        keys: the key pair of the run.
        ring: the keys that may connect; None admits every client that knows the public key of the
            run.
        clock: returns monotonic seconds.

    Attributes:
        titles: what to call the processes that forward to the run, by their pids.
    """

    titles = NO_TITLES

    def __init__(
        self,
        kind: int,
        keys: Keys,
        ring: KeyRing | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(kind)
        self._keys = keys
        self._ring = KeyRing() if ring is None else ring
        self._clock = clock
        self._pauses: dict[str, float] = {}  # seconds of the last pause, by public half of the key
        self._paused: dict[str, float] = {}  # until when; replaced, as another thread reads it
        self._reopen_time: float | None = None  # None: it is open

    @abstractmethod
    def _listen(self, endpoint: str) -> None:
        """Set the options of a new socket, and bind it.

        Raises:
            OSError: the port is in use, or the address is not one of this machine.
        """

    def _pause(self, frame: zmq.Frame, flood: str, closed: str) -> None:
        """Disconnect all clients, and do not admit the key of a frame for a while.

        Args:
            frame: one of the flood.
            flood: what was too much.
            closed: what the key misses.
        """
        public = "" if self._ring.admits_all else connection_property(frame, USER_ID)
        seconds = min(2 * self._pauses.get(public, PAUSE_SECONDS / 2), MAX_PAUSE_SECONDS)
        self._pauses[public] = seconds
        log.warning(
            "A viewer%s sends %s: no %s for %s for %.0f s, then it attaches again by itself",
            self._by([frame]),
            flood,
            closed,
            "this key" if public else "all viewers",
            seconds,
        )
        if public:
            self._paused = {**self._paused, public: self._clock() + seconds}
        self._disconnect_all(0.0 if public else seconds)

    def _disconnect_all(self, seconds: float = 0.0) -> None:
        """Disconnect all clients, and open again after ``seconds``."""
        self.close()
        self._reopen_time = self._clock() + seconds
        self._is_open()

    def _is_key_paused(self, public_key: str) -> bool:
        """Return whether a key is not admitted after a flood; called by another thread."""
        return self._clock() < self._paused.get(public_key, 0.0)

    def _is_open(self) -> bool:
        """Return whether the socket is open; open it again after a flood."""
        if self._reopen_time is None:
            return True
        if self._clock() < self._reopen_time:
            return False
        self._create_socket()
        try:
            self._listen(self.endpoint)
        except OSError as error:
            log.warning("A socket of the run stays closed: %s", error)
            self._reopen_time = float("inf")
            return False
        self._reopen_time = None
        return True

    # ------------------------------------------------------------------ who sends

    def _origin(self, frames: Sequence[zmq.Frame]) -> tuple[AccessKey | None, str]:
        """Return the key of the connection that frames arrived on, and the address of its end."""
        public, address = "", ""
        if frames:  # which all have the properties of their connection
            public = connection_property(frames[0], USER_ID)
            address = describe_address(connection_property(frames[0], PEER_ADDRESS), self.titles)
        return self._ring.find(public), address

    def _by(self, frames: Sequence[zmq.Frame]) -> str:
        """Return who has sent frames, in words."""
        key, address = self._origin(frames)
        name = "an unknown key" if key is None else key.name
        return f" with the key {name!r}" + (f" ({address})" if address else "")
