"""One copy per batch from the device to the host, for which the training never waits."""

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
    """Hands on what was sent, in order; from a GPU, as soon as the copy has finished by itself."""

    def __init__(self) -> None:
        self._under_way: deque[tuple[Tensor, torch.Event, Callable[[np.ndarray], T]]] = deque()

    def send(self, values: Tensor, finish: Callable[[np.ndarray], T]) -> T | None:
        """Copy ``values`` to the host.

        Returns:
            ``finish(values)`` of the oldest ones that are on the host now; from a CPU that is of
            these. The array is not used again here.
        """
        if values.device.type != "cuda":
            return finish(values.cpu().numpy())
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        self._under_way.append((host, arrived, finish))
        # The newest never: asking for it would only find out that it is still under way.
        return self._take() if len(self._under_way) > 1 and self._under_way[0][1].query() else None

    def flush(self) -> list[T]:
        """Wait for all that is under way."""
        finished = []
        while self._under_way:
            self._under_way[0][1].synchronize()
            finished.append(self._take())
        return finished

    def clear(self) -> None:
        """Forget what is under way."""
        self._under_way.clear()

    def _take(self) -> T:
        host, _, finish = self._under_way.popleft()
        return finish(host.numpy())
