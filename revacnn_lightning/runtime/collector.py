"""The interface of everything that is collected only while a viewer requests it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from revacnn_lightning.protocol.messages import Message
from revacnn_lightning.runtime.batch import BatchContext

__all__ = ["Collector"]


class Collector(Protocol):
    """Collects messages that are too expensive to publish after every batch."""

    def select(self, request: Any) -> None:
        """Collect what this request selects for the next few seconds.

        Raises:
            EditRefusedError: the request selects something that does not exist.
        """

    def collect(self, context: BatchContext) -> Sequence[Message]:
        """Return the messages that are due after a batch, or while the run is paused."""

    def reset(self) -> None:
        """Discard everything that depends on the structure of the network: it has changed."""
