"""Has the hub read what arrives as soon as it does, in the server's event loop."""

from __future__ import annotations

from tornado.ioloop import IOLoop, PeriodicCallback

from .hub import Hub

__all__ = ["Reading"]

# A training of 200 batches a second would wake us as often: what comes within this time of a
# message is read together with it.
REST_SECONDS = 0.01
TICK_MS = 100  # for all that comes without a message


class Reading:
    """Waits on the sockets of the hub's run. To be made in the event loop's thread."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._loop = IOLoop.current()
        self._sockets: list[int] = []
        self._waited_on: list[int] = []
        self._resting = False
        hub.on_sockets, hub.on_request = self._watch, self._rest
        self._ticks = PeriodicCallback(hub.tick, TICK_MS)
        self._ticks.start()

    def close(self) -> None:
        """Read nothing any more."""
        self._ticks.stop()
        self._watch([])

    def _watch(self, sockets: list[int]) -> None:
        self._ignore()
        self._sockets = sockets
        if sockets:
            self._rest()

    def _listen(self) -> None:
        for descriptor in self._sockets:
            self._loop.add_handler(descriptor, self._arrived, IOLoop.READ)
        self._waited_on = self._sockets

    def _ignore(self) -> None:
        for descriptor in self._waited_on:
            self._loop.remove_handler(descriptor)
        self._waited_on = []

    def _arrived(self, _descriptor: int, _events: int) -> None:
        self._rest()
        self.hub.read()

    def _rest(self) -> None:
        """Wait on nothing for a moment, then read: also what came without a sign."""
        self._ignore()
        if not self._resting:
            self._resting = True
            self._loop.call_later(REST_SECONDS, self._rested)

    def _rested(self) -> None:
        self._resting = False
        if not self._sockets:
            return
        try:
            self.hub.read()
        finally:
            if not self._resting:  # what was read may have led to something being sent
                self._listen()
