"""The last batches of a run, in memory, to be written when something goes wrong."""

from __future__ import annotations

from collections import deque

from revacnn_lightning.recording.packed_message import PackedMessage

__all__ = ["BatchRing"]

MAX_BYTES = 48 * 2**20  # less than what waits to be written
BATCH = "snapshot"
STATES = ("structure", "status")  # the last ones before the first batch are kept


class BatchRing:
    """Keeps the messages of the last batches, and the state of the run before the first of them.

    Args:
        batches: number of batches to keep.
        max_bytes: maximum size of all messages; large networks keep fewer batches.
    """

    def __init__(self, batches: int, max_bytes: int = MAX_BYTES) -> None:
        self._max_batches, self._max_bytes = batches, max_bytes
        self._messages: deque[PackedMessage] = deque()
        self._states: dict[str, PackedMessage] = {}  # by topic
        self._n_batches = self._n_bytes = 0

    @property
    def n_batches(self) -> int:
        """Number of batches that are kept."""
        return self._n_batches

    def add(self, message: PackedMessage) -> None:
        """Add a message, and drop the oldest ones that are too many."""
        self._messages.append(message)
        self._n_batches += message.topic == BATCH
        self._n_bytes += len(message.data)
        while self._n_batches > self._max_batches or self._n_bytes > self._max_bytes:
            dropped = self._messages.popleft()
            self._n_batches -= dropped.topic == BATCH
            self._n_bytes -= len(dropped.data)
            if dropped.topic in STATES:
                self._states[dropped.topic] = dropped

    def messages(self) -> list[PackedMessage]:
        """Return the state before the first batch, then all messages that are kept."""
        states = [self._states[topic] for topic in STATES if topic in self._states]
        return [*states, *self._messages]
