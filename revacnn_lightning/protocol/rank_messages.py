"""The messages about the ranks of a training with several processes."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

__all__ = ["RankProblem", "RankState", "RankStates"]

RankProblem = Literal["silent", "behind", "failed", "ended"]


class RankState(Struct, frozen=True):
    """A rank that does not train as the others do.

    ``silent``: no heartbeat has arrived for ``seconds``, so the process is stopped or out of reach.
    ``behind``: it has been in an earlier batch than others for ``seconds``. ``failed``: it has
    raised ``detail``. ``ended``: its process has ended without an exception.
    """

    rank: int
    problem: RankProblem
    seconds: float = 0.0
    detail: str = ""


class RankStates(Struct, frozen=True, tag="rank_states"):
    """Which ranks of a training are in trouble. Published on every change and each second.

    It comes from a thread of its own: a rank that stops makes the others wait in a collective.
    ``size`` is the number of ranks.
    """

    run: str
    size: int
    ranks: list[RankState] = field(default_factory=list)  # that are in trouble, the first one first
