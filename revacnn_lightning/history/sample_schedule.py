"""Which batches are recorded for the history while no viewer is attached."""

from __future__ import annotations

import math

__all__ = ["MAX_OVERHEAD", "SampleSchedule"]

MAX_OVERHEAD = 0.001  # share of a step, on average over all batches
# A batch that is recorded alone costs up to so many times what one of a series does: code and
# memory are cold. Measured: 1.9 (a small network) to 3.3 (mobilenet_v2).
COST_ALONE = 3.3
MIN_INTERVAL = 32  # batches
EARLY_SHARE = 16  # early batches matter most: the interval grows with the step to this part of it
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


class SampleSchedule:
    """Samples a batch now and then, more often at the beginning of the run.

    Intervals vary by half, so that each batch of an accumulation window and each optimizer of
    several gets its turn.
    """

    def __init__(self) -> None:
        self._next = 0
        self._count = 0

    def is_due(self, step: int) -> bool:
        """Return whether to sample this batch."""
        return step >= self._next

    def advance(self, step: int, overhead: float) -> None:
        """Determine the sample after this one.

        Args:
            step: the batch that is sampled.
            overhead: what recording costs a batch in a series of recorded ones, as a share of a
                step.
        """
        longest = max(MIN_INTERVAL, math.ceil(COST_ALONE * overhead / MAX_OVERHEAD))
        interval = min(longest, 1 + step // EARLY_SHARE)
        self._count += 1
        spread = math.floor(interval / 2 * (self._count * GOLDEN_RATIO % 1))
        self._next = step + interval + spread
