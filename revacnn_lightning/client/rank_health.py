"""Which rank of a training is in trouble, in words."""

from __future__ import annotations

import time
from collections.abc import Callable

from revacnn_lightning.protocol.rank_messages import TroubledRank, TroubledRanks

__all__ = ["RankHealth"]

# Rank 0 publishes the states each second, from a thread that runs whatever the training does.
SILENT_SECONDS = 2.5


class RankHealth:
    """Tracks whether each rank of a run trains.

    Args:
        clock: returns the current time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._states: TroubledRanks | None = None
        self._received = 0.0

    @property
    def world_size(self) -> int:
        """The number of ranks; 1 if the run has not published any."""
        return 1 if self._states is None else self._states.size

    @property
    def has_lost_rank(self) -> bool:
        """Whether a rank has failed or ended; Lightning then ends all others."""
        states = [] if self._states is None else self._states.ranks
        return any(state.problem in ("failed", "ended") for state in states)

    def receive(self, states: TroubledRanks) -> None:
        """Replace the known states by newly published ones."""
        self._states, self._received = states, self._clock()

    def problem(self) -> str:
        """Return in words which ranks do not train as the others do; "" if all train."""
        states = self._states
        if states is None:
            return ""
        silence = self._clock() - self._received
        if silence > SILENT_SECONDS and not self.has_lost_rank:
            return f"rank 0 of {states.size} has sent nothing for {silence:.0f} s"
        return "; ".join(_describe(state, states.size) for state in states.ranks)


def _describe(state: TroubledRank, size: int) -> str:
    name = f"rank {state.rank} of {size}"
    if state.problem == "silent":
        return f"{name} has sent nothing for {state.seconds:.0f} s"
    if state.problem == "behind":
        return f"{name} has not begun the batch of the others for {state.seconds:.0f} s"
    if state.problem == "failed":
        return f"{name} failed: {state.detail}"
    return f"{name} has ended"
