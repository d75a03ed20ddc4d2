"""Whether the run waits before its next batch."""

from __future__ import annotations

from revacnn_lightning.protocol.requests import ControlRun, RequestBody

__all__ = ["Pause", "leads_to_pause"]


def leads_to_pause(request: RequestBody) -> bool:
    """Return whether a request lets the run pause, before the next batch or before a later one."""
    return isinstance(request, ControlRun) and request.action in ("pause", "step", "finish_epoch")


class Pause:
    """Pauses a run, resumes it, and lets some batches pass before. Not paused at first."""

    def __init__(self) -> None:
        self._is_paused = False
        self._batches_left = 0  # that may still pass
        self._last_epoch: int | None = None  # whose batches may all pass

    def apply(self, command: ControlRun, epoch: int = 0) -> str:
        """Apply ``pause``, ``resume``, ``step`` or ``finish_epoch``; return what happens, in words.

        Args:
            command: the command.
            epoch: the epoch of the next batch, or of the last one during validation.
        """
        self._is_paused = command.action != "resume"
        self._batches_left = command.batches if command.action == "step" else 0
        self._last_epoch = epoch if command.action == "finish_epoch" else None
        if command.action == "step":
            count = "one batch" if command.batches == 1 else f"{command.batches} batches"
            return f"Training {count}, then pausing"
        if command.action == "finish_epoch":
            return f"Training to the end of epoch {epoch + 1}, then pausing"
        return "Paused" if self._is_paused else "Resumed"

    def must_wait(self, epoch: int = 0) -> bool:
        """Return whether the next batch, of this epoch, must wait.

        Train the batch if the result is False: it is one of those that may still pass.
        """
        if not self._is_paused or epoch == self._last_epoch:
            return False
        self._last_epoch = None
        if self._batches_left > 0:
            self._batches_left -= 1
            return False
        return True

    @property
    def is_active(self) -> bool:
        """Whether the run pauses before one of the next batches."""
        return self._is_paused

    def describe(self) -> str:
        """Return when a run that is training pauses, in words; "" if it does not."""
        if self._last_epoch is not None:
            return f"pauses at the end of epoch {self._last_epoch + 1}"
        if not self._is_paused:
            return ""
        left = self._batches_left
        if left == 0:
            return "pauses before the next batch"
        return "pauses after the next batch" if left == 1 else f"pauses in {left} batches"
