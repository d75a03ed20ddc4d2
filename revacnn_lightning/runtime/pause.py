"""Whether the run waits before its next batch."""

from __future__ import annotations

__all__ = ["Pause"]

_RESULTS = {"pause": "Paused", "step": "Trained one batch", "resume": "Resumed"}


class Pause:
    """Pauses a run, resumes it, and lets single batches pass. Not paused at first."""

    def __init__(self) -> None:
        self._is_paused = False
        self._steps_left = 0  # single batches that may still pass

    def apply(self, action: str) -> str:
        """Apply ``"pause"``, ``"step"`` or ``"resume"``; return what was done, in words."""
        result = _RESULTS[action]
        self._is_paused = action != "resume"
        self._steps_left = 1 if action == "step" else 0
        return result

    def must_wait(self) -> bool:
        """Return whether the next batch must wait.

        Train the batch if the result is False: a single step is then used up.
        """
        if not self._is_paused:
            return False
        if self._steps_left > 0:
            self._steps_left -= 1
            return False
        return True
