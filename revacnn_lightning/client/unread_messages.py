"""Messages received while waiting for another one, for the next `NonblockingRunClient.poll`."""

from __future__ import annotations

from collections.abc import Iterable

from revacnn_lightning.protocol.messages import Message, Snapshot

__all__ = ["UnreadMessages"]

MAX_UNREAD = 1024  # older ones are dropped
MAX_UNREAD_BYTES = 64 * 2**20  # of their arrays: a snapshot of a large network has a megabyte


class UnreadMessages:
    """Keeps the newest messages until they are taken."""

    def __init__(self) -> None:
        self._messages: list[Message] = []

    def take_all(self) -> list[Message]:
        """Return all kept messages, oldest first, and forget them."""
        messages, self._messages = self._messages, []
        return messages

    def add(self, messages: Iterable[Message]) -> None:
        """Keep messages, and drop the oldest ones if there are too many."""
        self._messages += messages
        kept, size = 0, 0
        for message in reversed(self._messages):
            size += message.values.nbytes if isinstance(message, Snapshot) else 0
            if kept == MAX_UNREAD or size > MAX_UNREAD_BYTES:
                break
            kept += 1
        del self._messages[: len(self._messages) - kept]
