"""After which batches a run publishes: fast trainings publish a few batches at a time.

The code that makes, encodes and sends a message is cold after a training step. For several batches
in a row, it takes half the time of each.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from revacnn_lightning.protocol.run_sockets import SEND_QUEUE

__all__ = ["MAX_DELAY_SECONDS", "PublishSchedule"]

MAX_DELAY_SECONDS = 0.04  # that a batch waits for the next ones; no page shows more often
# Published in a row. libzmq drops messages that exceed the queue of a client, and a busy machine
# may take a while to empty it.
MAX_BATCHES = SEND_QUEUE // 3


class PublishSchedule:
    """Decides after which batches to publish all those since the last time.

    Args:
        max_delay: seconds that a batch may wait for the next ones; 0 publishes each one.
        clock: returns monotonic seconds.
    """

    def __init__(self, max_delay: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_delay = max_delay
        self._clock = clock
        self._waiting_since = -math.inf  # the first batch that waits
        self._waiting_count = 0
        self._last_time = -math.inf  # of a batch

    def is_due(self) -> bool:
        """Return whether to publish after this batch, because the next one may be too late."""
        now = self._clock()
        interval, self._last_time = now - self._last_time, now
        if not self._waiting_count:
            self._waiting_since = now
        self._waiting_count += 1
        is_early = now + interval - self._waiting_since < self._max_delay
        if is_early and self._waiting_count < MAX_BATCHES:
            return False
        self._waiting_count = 0
        return True
