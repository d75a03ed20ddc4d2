"""How long the parts of a batch take: by the clock, on a GPU by events in its stream.

Between two events in a stream lies what the device did meanwhile and what it waited for the host,
which is what a training step feels. Events are read only once they have happened by themselves;
making them costs about as much as what they time, so that there only some batches are timed.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from typing import Any

import torch

__all__ = ["Stopwatch"]

TIMED_EVERY = 8  # batches on a GPU, of which one is timed
MAX_UNREAD = 64  # batches whose events have not happened; older ones are given up


class Stopwatch:
    """Sums of the times of named parts, batch by batch."""

    def __init__(self) -> None:
        self._cuda = False
        self._timing = True
        self._batch = -1
        self._parts: list[tuple[str, Any, Any]] = []
        self._batches: deque[list[tuple[str, Any, Any]]] = deque(maxlen=MAX_UNREAD)

    def begin(self, device: torch.device) -> None:
        """A batch begins."""
        self._batch += 1
        self._cuda = device.type == "cuda"
        self._timing = not self._cuda or self._batch % TIMED_EVERY == 0
        self._parts = []

    def now(self) -> Any:
        """A point in time, for `add`."""
        if not self._cuda:
            return time.perf_counter()
        if not self._timing:
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def add(self, part: str, since: Any) -> None:
        """The time from ``since`` to now belongs to ``part``."""
        if self._timing:
            self._parts.append((part, since, self.now()))

    def end(self) -> None:
        """The batch is over."""
        if self._timing:
            self._batches.append(self._parts)
        self._parts = []

    def read(self) -> list[dict[str, float]]:
        """Seconds of the parts of each batch that is known by now, oldest first."""
        known = []
        while self._batches and _has_happened(self._batches[0]):
            seconds: dict[str, float] = defaultdict(float)
            for part, since, until in self._batches.popleft():
                if isinstance(since, float):
                    seconds[part] += until - since
                else:
                    seconds[part] += since.elapsed_time(until) / 1000
            known.append(dict(seconds))
        return known


def _has_happened(parts: list[tuple[str, Any, Any]]) -> bool:
    return not parts or isinstance(parts[-1][2], float) or parts[-1][2].query()
