"""All or nothing: what was done so far, and how to take it back."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

__all__ = ["Transaction"]


class Transaction:
    """Leave the ``with`` block by an exception, and everything noted in it is taken back.

    Whoever changes something calls ``on_rollback`` with the function that changes it back.
    """

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] = []

    def on_rollback(self, undo: Callable[[], object]) -> None:
        self._undo.append(undo)

    def rollback(self, keep: int = 0) -> None:
        """Take back everything but the first ``keep`` changes, newest first."""
        while len(self._undo) > keep:
            self._undo.pop()()

    @property
    def size(self) -> int:
        return len(self._undo)

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.rollback()
