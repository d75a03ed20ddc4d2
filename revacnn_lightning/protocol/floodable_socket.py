"""A socket that closes for a while after a flood, because libzmq cannot disconnect one client."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Callable

from revacnn_lightning.protocol.base_socket import BaseSocket

__all__ = ["FloodableSocket"]

log = logging.getLogger(__name__)

PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 60.0


class FloodableSocket(BaseSocket):
    """A socket that listens, except for a while after each flood.

    Its clients are disconnected, which also frees what libzmq keeps of their messages. All of them
    connect again by themselves. Each pause is twice as long as the one before.

    Args:
        kind: of the socket.
        clock: returns monotonic seconds.
    """

    def __init__(self, kind: int, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(kind)
        self._clock = clock
        self._pause_seconds = PAUSE_SECONDS
        self._reopen_time: float | None = None  # None: it is open

    @abstractmethod
    def _listen(self, endpoint: str) -> None:
        """Set the options of a new socket, and bind it.

        Raises:
            OSError: the port is in use, or the address is not one of this machine.
        """

    def _pause(self, flood: str, closed: str) -> None:
        """Disconnect all clients for a while, and log what was too much and what is closed."""
        log.warning(
            "A viewer sends %s: no %s for %.0f s, then all viewers attach again by themselves",
            flood,
            closed,
            self._pause_seconds,
        )
        self._disconnect_all()
        self._reopen_time = self._clock() + self._pause_seconds
        self._pause_seconds = min(2 * self._pause_seconds, MAX_PAUSE_SECONDS)

    def _disconnect_all(self) -> None:
        self.close()

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
