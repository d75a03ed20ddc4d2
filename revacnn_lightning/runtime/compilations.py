"""What ``torch.compile`` does while a training runs: how often, for how long, and what it gives up.

The compiler calls functions at the start and the end of each compilation, and logs a warning when a
function has been compiled so often that it runs without compiled code from then on.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ["CompilationCounter"]

COMPILER = "torch._dynamo"
LOGGER = "torch._dynamo.convert_frame"
LIMIT_HIT = "torch._dynamo hit config."  # how that warning begins


class CompilationCounter:
    """Counts the compilations of this process from `watch` to `close`.

    Args:
        clock: returns seconds.

    Attributes:
        count: how many functions were compiled. Each repeated compilation counts, too.
        seconds: how long compilations have taken, those of backward passes included.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.count = 0
        self.seconds = 0.0
        self._clock = clock
        self._started = 0.0
        self._given_up: list[str] = []
        self._warnings = _LimitWarnings(self._given_up.append)
        logging.getLogger(LOGGER).addHandler(self._warnings)

    def watch(self) -> None:
        """Register this object with the compiler.

        Call it again now and then, because a reset of the compiler unregisters it.

        Where nothing has been compiled yet, the compiler is not imported for it.
        """
        handler = _handler()
        if handler is not None and self._start not in handler.start_callbacks:
            handler.register_start_callback(self._start)
            handler.register_end_callback(self._end)

    def close(self) -> None:
        """Unregister this object from the compiler."""
        logging.getLogger(LOGGER).removeHandler(self._warnings)
        handler = _handler()
        if handler is not None and self._start in handler.start_callbacks:
            handler.remove_start_callback(self._start)
            handler.remove_end_callback(self._end)

    def pop_abandoned_functions(self) -> list[str]:
        """Return which functions torch.compile has given up since the last call, as sentences."""
        texts = self._given_up[:]
        self._given_up.clear()
        return texts

    def _start(self, *args: Any) -> None:
        self._started = self._clock()
        trigger = getattr(args[0], "callback_trigger", None) if args else None
        self.count += getattr(trigger, "name", "DYNAMO") == "DYNAMO"  # not of a backward alone

    def _end(self, *args: Any) -> None:
        self.seconds += self._clock() - self._started


class _LimitWarnings(logging.Handler):
    """Passes on the warnings of the compiler that it gives a function up."""

    def __init__(self, pass_on: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._pass_on = pass_on

    def emit(self, record: logging.LogRecord) -> None:
        if str(record.msg).startswith(LIMIT_HIT):
            lines = [line.strip() for line in record.getMessage().splitlines()]
            details = "; ".join(each for each in lines if each.startswith(("function:", "last")))
            self._pass_on(
                "torch.compile has compiled a function as often as its limit allows, and runs it "
                f"without compiled code from now on ({details}). Raise "
                "torch.compiler.config.recompile_limit if it is too low."
            )


def _handler() -> Any:
    """Return what the compiler's callbacks are registered with; None if it is not loaded."""
    callback = getattr(sys.modules.get(COMPILER), "callback", None)
    return getattr(callback, "callback_handler", None)
