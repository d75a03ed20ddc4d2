"""All or nothing: a list of functions that undo the changes made so far."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

__all__ = ["Transaction"]


class Transaction:
    """A context that undoes every change made in it if it is left by an exception.

    Code that changes something calls `on_rollback` with a function that undoes the change.
    """

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] = []

    def on_rollback(self, undo: Callable[[], object]) -> None:
        """Register a function that undoes the latest change."""
        self._undo.append(undo)

    def rollback(self, keep: int = 0) -> None:
        """Undo all but the first ``keep`` changes, newest first."""
        while len(self._undo) > keep:
            self._undo.pop()()

    @property
    def size(self) -> int:
        """The number of changes so far."""
        return len(self._undo)

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.rollback()
