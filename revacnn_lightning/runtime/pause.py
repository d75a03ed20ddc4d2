"""Whether the run waits before its next batch."""

from __future__ import annotations

__all__ = ["Pause"]

DONE = {"pause": "Paused", "step": "Trained one batch", "resume": "Resumed"}


class Pause:
    """Off at first."""

    def __init__(self) -> None:
        self._on = False
        self._steps = 0  # single batches to train all the same

    def take(self, action: str) -> str:
        """Carry out one of `DONE`; returns what was done, in words."""
        self._on = action != "resume"
        self._steps = 1 if action == "step" else 0
        return DONE[action]

    def holds(self) -> bool:
        """Whether to wait, asked before a batch: where it must not, the batch is trained."""
        if not self._on:
            return False
        if self._steps > 0:
            self._steps -= 1
            return False
        return True
