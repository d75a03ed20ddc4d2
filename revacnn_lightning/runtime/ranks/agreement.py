"""Before which batch all processes of a training stop to change it together.

Rank 0 decides, one exchange ahead: an asynchronous broadcast of a few numbers starts at one batch
and is waited for at a later one, when it has arrived long since. Exchanges are at least
`SECONDS_BETWEEN` apart, so that their cost does not depend on how short the batches are. With no
viewer attached, hardly any request arrives, and they are `IDLE_SECONDS_BETWEEN` apart. Where an
exchange takes long, as on a busy machine or between nodes, they are rarer: see `MAX_SHARE` and
`MAX_BATCH_SECONDS`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import torch

from revacnn_lightning.runtime.ranks.sharing import StatisticsInstruction
from revacnn_lightning.runtime.ranks.side_group import SideProcessGroup

__all__ = ["DecisionBroadcast", "RankActionBeforeBatch"]


class RankActionBeforeBatch(IntEnum):
    """What all processes do before the batch at which they wait for a broadcast of rank 0.

    ``NOTHING``: train on. ``STOP``: stop before the batch, to be changed together. ``PREPARE``:
    record how the next training step uses the network, because forwards that verify an edit need
    this.
    """

    NOTHING = 0
    PREPARE = 1
    STOP = 2


# A request waits for at most two exchanges: nobody notices a tenth of a second.
SECONDS_BETWEEN = 0.05
IDLE_SECONDS_BETWEEN = 0.2
MAX_BATCHES_BETWEEN = 64
# What exchanges take of the training, and of a batch on average, unless they would be further apart
# than these seconds.
MAX_SHARE = 0.0015
MAX_BATCH_SECONDS = 0.00006
MAX_SECONDS_BETWEEN = 0.25
MAX_IDLE_SECONDS_BETWEEN = 2.0
USUAL_SECONDS = 0.0003  # of an exchange, until some have been measured
SMOOTHING = 0.1  # weight of the newest exchange in their mean duration
# Seconds; a longer exchange has waited for a slow rank, which rarer exchanges would not save.
LONGEST_MEASURED = 0.01


class DecisionBroadcast:
    """Broadcasts from rank 0 what all processes do before one of the next batches.

    Each broadcast is an *exchange*: it starts at one batch and is waited for at a later one. Every
    process calls `begin_batch` before every batch and, where that returns an action, `start`
    afterwards.

    Args:
        group: the process group of all ranks.
        clock: returns monotonic seconds.

    Attributes:
        instruction: what rank 0 has broadcast about statistics when `begin_batch` last returned an
            action.
    """

    def __init__(
        self, group: SideProcessGroup, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._group = group
        self._clock = clock
        # Action, batches to the exchange after it, and what is shared
        self._values = torch.zeros(2 + len(StatisticsInstruction()), dtype=torch.int64)
        self._numbers = self._values.numpy()  # the same memory, which is faster to read and write
        self.instruction = StatisticsInstruction()
        self._work: Any = None
        self._batches_left = 0  # until the exchange that has begun is waited for
        self._batches = 0  # since the last exchange
        self._last = clock()  # when the last exchange was
        self._start_seconds = 0.0  # that it took to start the last exchange
        self._cost = USUAL_SECONDS  # mean duration of an exchange

    def begin_batch(self) -> RankActionBeforeBatch | None:
        """Return what all processes do before this batch; None if no exchange is due."""
        self._batches += 1
        self._batches_left -= 1
        if self._batches_left > 0:
            return None
        self._batches_left = 1
        if self._work is None:
            return RankActionBeforeBatch.NOTHING
        begun = self._clock()
        self._group.wait(self._work)
        self._add_cost(self._clock() - begun)
        action, self._batches_left, *shared = self._numbers.tolist()
        self.instruction = StatisticsInstruction(*shared)
        return RankActionBeforeBatch(action)

    def start(
        self,
        next_action: RankActionBeforeBatch,
        *,
        is_urgent: bool = False,
        is_idle: bool = False,
        instruction: StatisticsInstruction | None = None,
    ) -> None:
        """Start the next exchange.

        Args:
            next_action: what all processes do then. Only that of rank 0 counts, as for all
                arguments.
            is_urgent: whether another exchange is due a batch after this one.
            is_idle: whether no request is expected.
            instruction: what all ranks do with their statistics.
        """
        begun = self._clock()
        gap = 1 if is_urgent else self._gap(is_idle=is_idle)
        self._batches, self._last = 0, begun
        self._numbers[:] = (next_action, gap, *(instruction or StatisticsInstruction()))
        self._work = self._group.start_broadcast(self._values)
        self._start_seconds = self._clock() - begun

    def expedite_next(self) -> None:
        """Let the exchange that is about to start be due at the next batch. All call it."""
        self._batches_left = 1

    def _add_cost(self, waited: float) -> None:
        """Add the duration of an exchange to their mean."""
        seconds = min(self._start_seconds + waited, LONGEST_MEASURED)
        self._cost += SMOOTHING * (seconds - self._cost)

    def _gap(self, *, is_idle: bool) -> int:
        """Return how many batches lie before the next exchange, if they are as long as the last."""
        seconds = max((self._clock() - self._last) / max(self._batches, 1), 1e-6)
        wanted = IDLE_SECONDS_BETWEEN if is_idle else SECONDS_BETWEEN
        longest = MAX_IDLE_SECONDS_BETWEEN if is_idle else MAX_SECONDS_BETWEEN
        cheap = max(self._cost / MAX_SHARE, self._cost / MAX_BATCH_SECONDS * seconds)
        wanted = max(wanted, min(cheap, longest))
        return max(1, min(MAX_BATCHES_BETWEEN, int(wanted / seconds)))

    def finish(self) -> None:
        """Wait for the exchange that has begun, if any: no batch follows."""
        if self._work is not None:
            self._group.wait(self._work)
            self._work = None
