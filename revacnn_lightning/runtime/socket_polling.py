"""Before which batches a run polls its sockets: fewer while no client is attached."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["ACTIVE_SECONDS", "IDLE_SECONDS", "SocketPollingSchedule"]

IDLE_SECONDS = 0.05  # between two polls; a person who attaches does not notice it
ACTIVE_SECONDS = 10.0  # after the last sign of a client


class SocketPollingSchedule:
    """Decides before which batches the sockets are polled.

    The code of libzmq is cold between two training steps: to ask two sockets for what has arrived
    takes 100 µs there, and 5 µs in a row.

    Args:
        clock: returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next_poll = self._active_until = 0.0

    def poll_often_for_client(self) -> None:
        """Note that a client is attached: poll before each batch for a while."""
        self._active_until = self._clock() + ACTIVE_SECONDS

    def is_due(self) -> bool:
        """Return whether to poll before this batch. Call it before each one."""
        now = self._clock()
        if self._next_poll > now >= self._active_until:
            return False
        self._next_poll = now + IDLE_SECONDS
        return True
