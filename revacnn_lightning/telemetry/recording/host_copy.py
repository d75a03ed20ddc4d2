"""Copies from the device to the host, one per batch, whose results may wait for one another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

__all__ = ["HostCopy"]

T = TypeVar("T")


class HostCopy(Generic[T]):
    """Copies tensors to the host in order, without making the training wait for a GPU.

    Attributes:
        defers_results: whether results wait for `completed` or `flush` on a CPU, too.
    """

    def __init__(self) -> None:
        self.defers_results = False
        self._pending: deque[tuple[Tensor, torch.Event | None, Callable[[np.ndarray], T]]] = deque()

    def send(self, values: Tensor, finish: Callable[[np.ndarray], T]) -> T | None:
        """Start to copy ``values`` to the host.

        Returns:
            From a CPU ``finish(values)``; None if results are deferred. From a GPU the result of
            the oldest copy that has completed; None if there is none. The array belongs to
            ``finish``.
        """
        if values.device.type != "cuda":
            if not self.defers_results:
                return finish(values.cpu().numpy())
            self._pending.append((values.detach().to("cpu", copy=True), None, finish))
            return None
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        self._pending.append((host, copied, finish))
        # The newest copy has only just started, so that a query of its event would be in vain.
        is_done = len(self._pending) > 1 and self._is_completed()
        return self._pop() if is_done else None

    @property
    def has_pending(self) -> bool:
        """Whether some copies have not been returned yet."""
        return bool(self._pending)

    def completed(self) -> list[T]:
        """Return the results of the copies that have completed, oldest first, without waiting."""
        results = []
        while self._pending and self._is_completed():
            results.append(self._pop())
        return results

    def flush(self) -> list[T]:
        """Wait for all pending copies and return their results, oldest first."""
        results = []
        while self._pending:
            copied = self._pending[0][1]
            if copied is not None:
                copied.synchronize()
            results.append(self._pop())
        return results

    def clear(self) -> None:
        """Discard the pending copies."""
        self._pending.clear()

    def _is_completed(self) -> bool:
        """Return whether the oldest copy has completed."""
        copied = self._pending[0][1]
        return copied is None or copied.query()

    def _pop(self) -> T:
        host, _, finish = self._pending.popleft()
        return finish(host.numpy())
