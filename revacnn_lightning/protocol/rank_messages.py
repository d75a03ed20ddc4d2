"""The messages about the ranks of a training with several processes."""

from __future__ import annotations

from typing import Literal

import numpy as np
from msgspec import Struct, field

__all__ = ["RankProblem", "RankValues", "TroubledRank", "TroubledRanks"]

RankProblem = Literal["silent", "behind", "failed", "ended"]


class TroubledRank(Struct, frozen=True):
    """A rank that does not train as the others do.

    ``silent``: no heartbeat has arrived for ``seconds``, so the process is stopped or out of reach.
    ``behind``: it has been in an earlier batch than others for ``seconds``. ``failed``: it has
    raised ``detail``. ``ended``: its process has ended without an exception.
    """

    rank: int
    problem: RankProblem
    seconds: float = 0.0
    detail: str = ""


class TroubledRanks(Struct, frozen=True, tag="rank_states"):
    """Which ranks of a training are in trouble. Published on every change and each second.

    It comes from a thread of its own: a rank that stops makes the others wait in a collective.
    ``size`` is the number of ranks.
    """

    run: str
    size: int
    ranks: list[TroubledRank] = field(default_factory=list)  # in trouble, the first one first


class RankValues(Struct, frozen=True, tag="rank_values"):
    """What each rank has recorded of one layer, over the same batches up to ``step``.

    ``values`` is float32 of shape (ranks, len(statistics), filters); NaN where a rank has recorded
    nothing. ``losses`` are means over these batches, NaN if a loss was; None where none is known,
    as right after an edit. A rank is in step if its weights and its optimizer state are those of
    rank 0, bit for bit.
    """

    run: str
    version: int
    step: int
    layer: str
    statistics: list[str]
    losses: list[float | None]
    in_step: list[bool]
    nonfinite_weights: list[int]  # of the whole network: how many are infinite or NaN
    values: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))

    def differences(self) -> dict[int, list[str]]:
        """Return the ranks that differ from the others: rank -> how, in words."""
        found: dict[int, list[str]] = {}
        dead = self.dead_filters()
        shared = set.intersection(*map(set, dead)) if dead else set()
        for rank, loss in enumerate(self.losses):
            texts = []
            if not self.in_step[rank]:
                texts.append("out of step: its weights are not those of rank 0")
            if self.nonfinite_weights[rank]:
                texts.append(f"{self.nonfinite_weights[rank]:,} weights are infinite or NaN")
            if loss is not None and not np.isfinite(loss):
                texts.append("its loss is infinite or NaN")
            if own := sorted(set(dead[rank]) - shared):
                texts.append(f"silent in this rank only: {', '.join(map(str, own[:10]))}")
            if texts:
                found[rank] = texts
        return found

    def dead_filters(self) -> list[list[int]]:
        """Return the filters of each rank whose activation was zero in all of these batches."""
        if "activation" not in self.statistics:
            return [[] for _ in self.losses]
        table = self.values[:, self.statistics.index("activation")]
        return [[int(i) for i in np.flatnonzero(row == 0)] for row in table]
