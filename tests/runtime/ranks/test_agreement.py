"""How many batches lie between two exchanges. The clock is simulated."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from revacnn_lightning.runtime.ranks.agreement import DecisionBroadcast, RankActionBeforeBatch


class Group:
    """A group in which every exchange has arrived immediately.

    Args:
        now: the time, which an exchange advances.
        seconds: that an exchange takes in all.
    """

    def __init__(self, now: list[float], seconds: float = 0.0) -> None:
        self.now, self.seconds = now, seconds

    def start_broadcast(self, values: Any) -> Any:
        self.now[0] += self.seconds / 2
        return object()

    def wait(self, work: Any) -> None:
        self.now[0] += self.seconds / 2


def gaps_of(group: Group, seconds: float, is_idle: bool) -> set[int]:
    """Return the batches between exchanges once these have been measured."""
    agreement = DecisionBroadcast(group, lambda: group.now[0])  # type: ignore[arg-type]
    exchanged = []
    for batch in range(4000):
        if agreement.begin_batch() is not None:
            exchanged.append(batch)
            agreement.start(RankActionBeforeBatch.NOTHING, is_idle=is_idle)
        group.now[0] += seconds
    return {b - a for a, b in itertools.pairwise(exchanged[len(exchanged) // 2 :])}


@pytest.mark.parametrize(
    ("seconds", "is_idle", "batches"),
    [(0.0099, False, 5), (0.0099, True, 20), (0.3, True, 1), (1e-4, True, 64)],
)
def test_exchanges_are_rarer_while_nobody_is_attached(seconds: float, is_idle: bool, batches: int):
    assert gaps_of(Group([100.0]), seconds, is_idle) == {batches}


@pytest.mark.parametrize(
    ("cost", "step", "is_idle", "least"),
    [
        (0.00015, 0.004, False, 0.1),  # a share of 0.15 %
        (0.0003, 0.15, True, 0.75),  # 0.06 ms of a batch
        (0.1, 0.004, False, 0.25),  # a rank that is waited for: not further apart than this
        (0.1, 0.04, True, 2.0),
    ],
)
def test_exchanges_are_rarer_where_they_take_long(
    cost: float, step: float, is_idle: bool, least: float
):
    gaps = gaps_of(Group([100.0], cost), step, is_idle=is_idle)
    assert all(gap * step + cost == pytest.approx(least, abs=2 * step) for gap in gaps)
