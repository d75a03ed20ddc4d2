"""Which ranks of a training are in trouble, from their heartbeats."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from revacnn_lightning.protocol.rank_messages import RankProblem, TroubledRank

__all__ = ["HEARTBEAT_SECONDS", "RankWatch"]

HEARTBEAT_SECONDS = 0.5  # between two heartbeats of a rank
SILENT_SECONDS = 3 * HEARTBEAT_SECONDS  # without a heartbeat, until a rank is in trouble
BEHIND_SECONDS = 2.0  # a rank may begin a batch so much later than another one


@dataclass
class _Rank:
    last_heartbeat: float  # seconds of the clock
    step: int = 0  # batches that it has begun
    behind_since: float | None = None
    problem: RankProblem | None = None  # with which it has left
    detail: str = ""
    has_finished: bool = False


class RankWatch:
    """Decides which ranks are in trouble. Any thread may call it.

    Args:
        ranks: the ranks that send heartbeats: all but rank 0.
        clock: returns the current time in seconds.
    """

    def __init__(self, ranks: Iterable[int], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ranks = {rank: _Rank(clock()) for rank in ranks}
        self._lost: list[int] = []  # in the order in which they left
        self._has_lost = threading.Event()
        self._errors: list[str] = []  # of ReVACNN, in words
        self._new_errors: deque[str] = deque()
        self._has_trouble = threading.Event()  # a rank is lost, or there is an error

    def receive(self, rank: int, step: int) -> None:
        """Receive the heartbeat of a rank that has begun ``step`` batches."""
        one = self._ranks[rank]
        one.last_heartbeat, one.step = self._clock(), step

    def finish(self, rank: int) -> None:
        """Record that a rank has left because its training has finished."""
        self._ranks[rank].has_finished = True

    def record_lost_rank(self, rank: int, detail: str = "") -> None:
        """Record that a rank has failed or, without a detail, that its connection has ended."""
        one = self._ranks[rank]
        if one.problem is None and not one.has_finished:
            one.problem, one.detail = "failed" if detail else "ended", detail
            self._lost.append(rank)
            self._has_lost.set()
            self._has_trouble.set()

    def report_error(self, rank: int, detail: str) -> None:
        """Record an internal error of ReVACNN in a rank, which still trains."""
        text = f"internal error of ReVACNN in rank {rank}: {detail}"
        self._errors.append(text)
        self._new_errors.append(text)
        self._has_trouble.set()

    def pop_errors(self) -> list[str]:
        """Return the internal errors that were reported since the last call, in words."""
        return [self._new_errors.popleft() for _ in range(len(self._new_errors))]

    def describe_first_trouble(self, timeout: float = 0.0) -> str:
        """Return which rank was lost, or where ReVACNN has failed, in words.

        "" if neither happens within ``timeout``.
        """
        if not self._has_trouble.wait(timeout):
            return ""
        return self.describe_first_lost_rank() or self._errors[0]

    def describe_first_lost_rank(self, timeout: float = 0.0) -> str:
        """Return which rank was lost first, in words; "" if none is lost within ``timeout``."""
        if not self._has_lost.wait(timeout):
            return ""
        rank = self._lost[0]
        one = self._ranks[rank]
        return f"rank {rank} failed: {one.detail}" if one.detail else f"rank {rank} has ended"

    def states(self, step: int) -> list[TroubledRank]:
        """Return the ranks in trouble, those that were lost first.

        Args:
            step: the batches that rank 0 has begun.
        """
        now = self._clock()
        furthest = max([step, *(one.step for one in self._ranks.values())])
        found = [self._lost_state(rank) for rank in self._lost]
        for rank, one in self._ranks.items():
            is_behind = one.step < furthest
            one.behind_since = (one.behind_since or now) if is_behind else None
            if one.problem is not None or one.has_finished:
                continue
            silence = now - one.last_heartbeat
            lag = 0.0 if one.behind_since is None else now - one.behind_since
            if silence > SILENT_SECONDS:
                found.append(TroubledRank(rank, "silent", silence))
            elif lag > BEHIND_SECONDS:
                found.append(TroubledRank(rank, "behind", lag))
        return found

    def _lost_state(self, rank: int) -> TroubledRank:
        one = self._ranks[rank]
        assert one.problem is not None
        return TroubledRank(rank, one.problem, 0.0, one.detail)
