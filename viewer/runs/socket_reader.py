"""Receives messages in the server's event loop as soon as they arrive."""

from __future__ import annotations

from tornado.ioloop import IOLoop, PeriodicCallback

from .registry import RunRegistry
from .run_follower import RunFollower

__all__ = ["RunMessageReceiver"]

# Messages that arrive within this time are received together. A training of 200 batches per
# second would otherwise wake the server as often.
BATCHING_SECONDS = 0.01
TICK_MS = 100


class RunMessageReceiver:
    """Receives the messages of all runs, and ticks the registry. Create it in the loop's thread."""

    def __init__(self, registry: RunRegistry) -> None:
        self.registry = registry
        self._loop = IOLoop.current()
        self._readers: dict[RunFollower, _FollowerReader] = {}
        self._ticks = PeriodicCallback(self.tick, TICK_MS)
        self._ticks.start()

    def tick(self) -> None:
        """Tick the registry, and start reading from new followers."""
        self.registry.tick()
        # Readers of closed followers have already stopped: `RunFollower.on_close`.
        self._readers = {
            follower: self._readers.get(follower) or _FollowerReader(follower, self._loop)
            for follower in self.registry.followers()
            if follower.file_descriptors()
        }

    def close(self) -> None:
        """Stop receiving."""
        self._ticks.stop()
        for reader in self._readers.values():
            reader.close()


class _FollowerReader:
    """Waits for one follower's sockets to become readable."""

    def __init__(self, follower: RunFollower, loop: IOLoop) -> None:
        self.follower = follower
        self._loop = loop
        self._registered: list[int] = []
        self._is_pausing = self._is_closed = False
        follower.on_request_sent, follower.on_close = self._pause, self.close
        self._pause()

    def close(self) -> None:
        self._is_closed = True
        self._unregister()

    def _register(self) -> None:
        self._registered = self.follower.file_descriptors()
        for descriptor in self._registered:
            self._loop.add_handler(descriptor, self._on_readable, IOLoop.READ)

    def _unregister(self) -> None:
        for descriptor in self._registered:
            self._loop.remove_handler(descriptor)
        self._registered = []

    def _on_readable(self, _descriptor: int, _events: int) -> None:
        self._pause()
        self.follower.receive()

    def _pause(self) -> None:
        """Unregister for `BATCHING_SECONDS`, then receive, also messages without notification."""
        self._unregister()
        if not self._is_pausing and not self._is_closed:
            self._is_pausing = True
            self._loop.call_later(BATCHING_SECONDS, self._resume)

    def _resume(self) -> None:
        self._is_pausing = False
        if self._is_closed:
            return
        try:
            self.follower.receive()
        finally:
            if not self._is_pausing:  # handling a message may have sent a request
                self._register()
