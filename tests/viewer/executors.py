"""Executors that run in the thread of the test, when the test wants it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

__all__ = ["HeldExecutor", "ImmediateExecutor"]


class HeldExecutor(Executor):
    """Runs what was submitted on `run`.

    Attributes:
        n_submitted: how much was submitted so far.
    """

    def __init__(self) -> None:
        self.n_submitted = 0
        self._held: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.n_submitted += 1
        self._held.append((future, lambda: fn(*args, **kwargs)))
        return future

    def run(self) -> None:
        """Run what is held."""
        held, self._held = self._held, []
        for future, call in held:
            try:
                future.set_result(call())
            except Exception as error:  # noqa: BLE001 - as a pool does
                future.set_exception(error)


class ImmediateExecutor(HeldExecutor):
    """Runs what is submitted immediately."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        self.run()
        return future
