"""What receives the messages of a run inside the training process, such as a recording."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from revacnn_lightning.protocol.messages import Message

__all__ = ["MessageObserver", "MessageObservers"]

log = logging.getLogger(__name__)


class MessageObserver(Protocol):
    """Receives every message that a run publishes, and the replies to edits and commands."""

    def needs_batch(self, step: int) -> bool:
        """Return whether the batch must be recorded. Called before each one."""

    def receive(self, message: Message, frames: Sequence[Any]) -> None:
        """Process a message, given also its frames. The training waits for this."""

    def close(self, state: str, detail: str) -> None:
        """Release everything: the run has ended in this state."""


class MessageObservers:
    """The observers of a run. An exception of one ends that one, never the run."""

    def __init__(self, observers: Sequence[MessageObserver] = ()) -> None:
        self._observers = list(observers)

    def need_batch(self, step: int) -> bool:
        """Return whether an observer needs the batch. All are called."""
        is_needed = False  # every batch asks, so without the calls of `_call`
        for observer in list(self._observers):
            try:
                is_needed |= bool(observer.needs_batch(step))
            except Exception:  # noqa: BLE001 - a bug of this package must not stop the training
                self._end(observer)
        return is_needed

    def receive(self, message: Message, frames: Sequence[Any]) -> None:
        """Pass a message to all observers."""
        for observer in list(self._observers):
            self._call(observer, observer.receive, message, frames)

    def close(self, state: str, detail: str) -> None:
        """Close all observers."""
        for observer in list(self._observers):
            self._call(observer, observer.close, state, detail)
        self._observers.clear()

    def _call(self, observer: MessageObserver, method: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return method(*arguments)
        except Exception:  # noqa: BLE001 - a bug of this package must not stop the training
            self._end(observer)
            return None

    def _end(self, observer: MessageObserver) -> None:
        """Log the exception that is handled, and call this observer no longer."""
        log.warning(
            "Internal error in ReVACNN: %s ends, training continues",
            type(observer).__name__,
            exc_info=True,
        )
        self._observers.remove(observer)
