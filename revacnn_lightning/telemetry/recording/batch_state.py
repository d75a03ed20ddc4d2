"""The batch under way, shared by everything that records it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["BatchState"]


@dataclass(eq=False)
class BatchState:
    """The batch under way. The recorder writes it, the hooks read it.

    Attributes:
        is_recording: whether forwards, backwards and optimizer steps count. Hooks return
            immediately otherwise, and gradients that arrive after the batch are ignored.
        statistics: those sampled on this batch, of all or of some layers.
        loss_scale: what mixed precision multiplies the loss by.
        start: when the batch began, on the stopwatch.
        failure: the first error of a hook in this batch, which has ended its recording.
    """

    is_recording: bool = False
    statistics: frozenset[str] = frozenset()
    loss_scale: Tensor | float = 1.0
    start: Any = 0.0
    failure: Exception | None = None

    def begin(self, start: Any, loss_scale: Tensor | float) -> None:
        """Start to record. A loss scale on a device is copied there, without synchronization."""
        self.is_recording, self.failure = True, None
        self.start = start
        if isinstance(loss_scale, Tensor):  # mixed precision updates it within the batch
            loss_scale = loss_scale.detach().clone()
        self.loss_scale = loss_scale

    def guarded(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """Return a hook whose errors end the recording of the batch, but not the user's step.

        `Recorder.end_batch` raises them.
        """

        def call(*args: Any) -> Any:
            try:
                return hook(*args)
            except Exception as error:  # noqa: BLE001 - a bug here must not stop the training
                self.is_recording = False
                self.failure = self.failure or error
                return None

        return call
