"""Which edits one Apply has made, so that one Undo takes them back and one Redo repeats them."""

from __future__ import annotations

__all__ = ["UndoRedoGroup"]


class UndoRedoGroup:
    """The newest group of edits of one tab, applied or undone.

    A group counts only while the structure has the version that it led to: once anything else has
    changed the network, Undo and Redo mean a single edit.
    """

    def __init__(self) -> None:
        self._applied, self._applied_version = 0, -1
        self._undone, self._undone_version = 0, -1

    def begin(self) -> None:
        """Start a new group: the edits of the next Apply."""
        self._applied = 0

    def on_applied(self, version: int) -> None:
        """Count an edit of the group that led to this structure version."""
        is_next = version == self._applied_version + 1  # else another client has edited between
        self._applied = self._applied + 1 if self._applied and is_next else 1
        self._applied_version = version

    def on_undone(self, count: int, version: int) -> None:
        """Remember that ``count`` edits were undone together."""
        self._undone, self._undone_version = count, version

    def on_redone(self, count: int, version: int) -> None:
        """Remember that ``count`` edits were redone together."""
        self._applied, self._applied_version = count, version

    def undo_count(self, version: int) -> int:
        """Return how many edits Undo takes back at this structure version, at least 1."""
        return max(1, self._applied) if version == self._applied_version else 1

    def redo_count(self, version: int) -> int:
        """Return how many edits Redo repeats at this structure version, at least 1."""
        return max(1, self._undone) if version == self._undone_version else 1
