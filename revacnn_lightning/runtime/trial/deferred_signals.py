"""Delays signal handlers while the network holds the values of a trial."""

from __future__ import annotations

import signal
import threading
from types import TracebackType
from typing import Any

__all__ = ["DeferredSignals"]


class DeferredSignals:
    """A context in which Python's signal handlers wait for its end.

    A cluster requests a checkpoint by a signal, and Lightning saves it in the handler, whatever the
    process does at that moment. The default handler of Ctrl-C is not delayed. In another thread
    than the main one, no handler can be delayed.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._arrived: list[int] = []

    @property
    def have_arrived(self) -> bool:
        """Whether a handler waits."""
        return bool(self._arrived)

    def __enter__(self) -> DeferredSignals:
        if threading.current_thread() is threading.main_thread():
            for number in signal.valid_signals():
                handler = signal.getsignal(number)
                if callable(handler) and handler is not signal.default_int_handler:
                    self._handlers[number] = handler
                    signal.signal(number, self._note)
        return self

    def _note(self, number: int, _: object) -> None:
        self._arrived.append(number)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        for number in dict.fromkeys(self._arrived):
            self._handlers[number](number, None)
