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
        self._undo: list[tuple[Callable[[], object], Callable[[], object] | None]] = []

    def on_rollback(
        self, undo: Callable[[], object], commit: Callable[[], object] | None = None
    ) -> None:
        """Register a function that undoes the latest change.

        Args:
            undo: undoes it.
            commit: completes it, if it is not undone, when the context is left.
        """
        self._undo.append((undo, commit))

    def rollback(self, keep: int = 0) -> None:
        """Undo all but the first ``keep`` changes, newest first."""
        while len(self._undo) > keep:
            undo, _ = self._undo.pop()
            undo()

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
            return
        for _, commit in self._undo:
            if commit is not None:
                commit()
