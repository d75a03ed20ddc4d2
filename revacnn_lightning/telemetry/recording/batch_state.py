"""The batch under way, shared by everything that records it."""

from __future__ import annotations

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
    """

    is_recording: bool = False
    statistics: frozenset[str] = frozenset()
    loss_scale: Tensor | float = 1.0
    start: Any = 0.0

    def begin(self, start: Any, loss_scale: Tensor | float) -> None:
        """Start to record. A loss scale on a device is copied there, without synchronization."""
        self.is_recording = True
        self.start = start
        if isinstance(loss_scale, Tensor):  # mixed precision updates it within the batch
            loss_scale = loss_scale.detach().clone()
        self.loss_scale = loss_scale
