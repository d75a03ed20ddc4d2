"""Has what arrives read as soon as it does, in the server's event loop."""

from __future__ import annotations

from tornado.ioloop import IOLoop, PeriodicCallback

from .registry import RunRegistry
from .run_follower import RunFollower

__all__ = ["SocketReader"]

# A training of 200 batches a second would wake us as often: what comes within this time of a
# message is read together with it.
REST_SECONDS = 0.01
TICK_MS = 100  # for all that comes without a message


class SocketReader:
    """Drives the runs. To be made in the event loop's thread."""

    def __init__(self, runs: RunRegistry) -> None:
        self.runs = runs
        self._loop = IOLoop.current()
        self._waits: dict[RunFollower, _Wait] = {}
        self._ticks = PeriodicCallback(self.tick, TICK_MS)
        self._ticks.start()

    def tick(self) -> None:
        """Tick the runs, and wait on the sockets of new ones."""
        self.runs.tick()
        # What is closed has ended its waiting by itself.
        self._waits = {
            hub: self._waits.get(hub) or _Wait(hub, self._loop)
            for hub in self.runs.hubs()
            if hub.sockets()
        }

    def close(self) -> None:
        """Read nothing any more."""
        self._ticks.stop()
        for wait in self._waits.values():
            wait.close()


class _Wait:
    """Waits on the sockets of one hub."""

    def __init__(self, hub: RunFollower, loop: IOLoop) -> None:
        self.hub = hub
        self._loop = loop
        self._listening: list[int] = []
        self._resting = self._closed = False
        hub.on_request, hub.on_close = self._rest, self.close
        self._rest()

    def close(self) -> None:
        self._closed = True
        self._ignore()

    def _listen(self) -> None:
        self._listening = self.hub.sockets()
        for descriptor in self._listening:
            self._loop.add_handler(descriptor, self._arrived, IOLoop.READ)

    def _ignore(self) -> None:
        for descriptor in self._listening:
            self._loop.remove_handler(descriptor)
        self._listening = []

    def _arrived(self, _descriptor: int, _events: int) -> None:
        self._rest()
        self.hub.read()

    def _rest(self) -> None:
        """Wait on nothing for a moment, then read: also what came without a sign."""
        self._ignore()
        if not self._resting and not self._closed:
            self._resting = True
            self._loop.call_later(REST_SECONDS, self._rested)

    def _rested(self) -> None:
        self._resting = False
        if self._closed:
            return
        try:
            self.hub.read()
        finally:
            if not self._resting:  # what was read may have led to something being sent
                self._listen()
