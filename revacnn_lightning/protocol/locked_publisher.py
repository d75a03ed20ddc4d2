"""A `Publisher` that several threads may use.

The thread of the training may wait for other ranks. Another thread publishes for which one.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from revacnn_lightning.protocol.access_keys import KeyRing
from revacnn_lightning.protocol.base_socket import Keys
from revacnn_lightning.protocol.run_sockets import Publisher

__all__ = ["LockedPublisher"]


class LockedPublisher(Publisher):
    """A `Publisher` whose methods any thread may call. After `close`, it sends nothing."""

    def __init__(self, endpoint: str, keys: Keys, ring: KeyRing | None = None) -> None:
        self._lock = threading.RLock()
        super().__init__(endpoint, keys, ring)

    def has_subscribers(self) -> bool:
        with self._lock:
            return super().has_subscribers()

    def publish_frames(self, frames: Sequence[Any]) -> None:
        with self._lock:
            if self._is_open() and not self._socket.closed:
                super().publish_frames(frames)

    def disconnect_ended_keys(self) -> None:
        with self._lock:
            super().disconnect_ended_keys()

    def close(self, linger: float = 0.0) -> None:
        with self._lock:
            super().close(linger)
