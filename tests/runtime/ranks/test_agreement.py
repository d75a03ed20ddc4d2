"""How many batches lie between two exchanges. The clock is simulated."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from revacnn_lightning.runtime.ranks.agreement import Agreement, Signal


class Group:
    """A group in which every exchange has arrived immediately."""

    def start_broadcast(self, values: Any) -> Any:
        return object()

    def wait(self, work: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("seconds", "is_idle", "batches"),
    [(0.0099, False, 5), (0.0099, True, 20), (0.3, True, 1), (1e-4, True, 64)],
)
def test_exchanges_are_rarer_while_nobody_is_attached(seconds: float, is_idle: bool, batches: int):
    now = [100.0]
    agreement = Agreement(Group(), lambda: now[0])  # type: ignore[arg-type]
    exchanged = []
    for batch in range(200):
        if agreement.arrive() is not None:
            exchanged.append(batch)
            agreement.start(Signal.NOTHING, is_idle=is_idle)
        now[0] += seconds
    gaps = {b - a for a, b in itertools.pairwise(exchanged[2:])}
    assert gaps == {batches}
