"""How long the parts of a batch take: by the clock, on a GPU by events in its stream.

The time between two events in a stream includes what the device did and what it waited for the
host, which is what a training step takes. Events are read only after they have completed, so that
nothing synchronizes. Measuring a part may cost as much as the part; therefore only some batches are
timed, unless something has to be decided.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from typing import Any

import torch

__all__ = ["TIMING_INTERVAL", "Stopwatch"]

TIMING_INTERVAL = 8  # one of so many batches is timed
MAX_UNREAD = 64  # batches whose events are pending; older ones are discarded


class Stopwatch:
    """Sums the times of named parts, batch by batch.

    Attributes:
        is_timing: whether this batch is timed.
    """

    def __init__(self) -> None:
        self.is_timing = True
        self._is_cuda = False
        self._batch = -1
        self._parts: list[tuple[str, Any, Any]] = []
        self._unread: deque[list[tuple[str, Any, Any]]] = deque(maxlen=MAX_UNREAD)

    def begin_batch(self, device: torch.device, *, every_batch: bool = True) -> None:
        """Start to time a batch on this device.

        Args:
            device: where the training runs.
            every_batch: time all batches, unless they run on a GPU.
        """
        self._batch += 1
        self._is_cuda = device.type == "cuda"
        # Not always the same one of `TIMING_INTERVAL` batches: it would always sample the same.
        turn, position = divmod(self._batch, TIMING_INTERVAL)
        self.is_timing = (every_batch and not self._is_cuda) or position == turn % TIMING_INTERVAL
        self._parts = []

    def now(self) -> Any:
        """Return the current time, for `add`."""
        if not self.is_timing:
            return None
        if not self._is_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def add(self, part: str, start: Any) -> None:
        """Attribute the time from ``start`` to now to ``part``."""
        if self.is_timing:
            self._parts.append((part, start, self.now()))

    def end_batch(self) -> None:
        """Finish the batch."""
        if self.is_timing:
            self._unread.append(self._parts)
        self._parts = []

    def pop_timings(self) -> list[dict[str, float]]:
        """Return the seconds per part of each batch that has completed, oldest first."""
        timings = []
        while self._unread and _is_complete(self._unread[0]):
            seconds: dict[str, float] = defaultdict(float)
            for part, start, end in self._unread.popleft():
                if isinstance(start, float):
                    seconds[part] += end - start
                else:
                    seconds[part] += start.elapsed_time(end) / 1000
            timings.append(dict(seconds))
        return timings


def _is_complete(parts: list[tuple[str, Any, Any]]) -> bool:
    return not parts or isinstance(parts[-1][2], float) or parts[-1][2].query()
