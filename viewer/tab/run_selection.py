"""Which run one tab shows."""

from __future__ import annotations

import time

from revacnn_lightning.protocol.connection import Connection

from ..runs.registry import RunRegistry
from ..runs.run_follower import RunFollower

__all__ = ["RunSelection"]


class RunSelection:
    """The run of one tab: the one its address names, else the newest when the page was opened.

    It stays until a person chooses another, also when it has ended: what it showed last is there
    to be read.

    Args:
        follower: to begin with.
        runs: where others are found; None: nowhere.
        wanted: the run that is named in the page's address; "" if none is.
    """

    def __init__(
        self, follower: RunFollower, runs: RunRegistry | None = None, wanted: str = ""
    ) -> None:
        self.follower = follower
        self.runs = runs
        self.wanted = wanted

    def update(self) -> None:
        """Attach as soon as there is a run, and keep it from being let go."""
        if self.runs is not None and not self.follower.run_id:
            self.follower = self.runs.find(self.wanted) or self.runs.find() or self.follower
        self.follower.last_shown = time.monotonic()

    def follow(self, run: str) -> None:
        """Show this run from now on."""
        found = self.runs.find(run) if self.runs is not None else None
        if found is not None:
            self.follower = found

    @property
    def problem(self) -> str:
        """Why there is nothing to show, in a sentence."""
        return self.follower.problem or ("" if self.runs is None else self.runs.problem)

    def known(self) -> list[Connection]:
        """The runs that can be shown, newest first: those that go on, and this one."""
        live = [] if self.runs is None else list(self.runs.live)
        mine = self.follower.connection
        if mine is not None and all(one.run != mine.run for one in live):
            live.append(mine)
        return live

    def next_run(self) -> Connection | None:
        """The newest other run, if this one has ended."""
        if self.runs is None or not self.follower.run_id or not self.follower.health().ended:
            return None
        return next((one for one in self.runs.live if one.run != self.follower.run_id), None)
