"""Which run a tab shows."""

from __future__ import annotations

import time

from revacnn_lightning.protocol.connection_file import Connection

from ..runs.registry import RunRegistry
from ..runs.run_follower import RunFollower
from ..runs.run_state import RunState

__all__ = ["RunSelection"]


class RunSelection:
    """The run of one tab: the run named in its address, or else the newest run.

    The tab stays on its run after the run has ended, until another run is selected: the last
    recorded state remains readable. Only a run that resumes it from a checkpoint takes its place,
    because it is the same training and its history contains what was shown.

    Args:
        follower: the run to start with; it may be a follower without a run.
        registry: provides the other runs; None if there are no others.
        requested_run: id of the run named in the page's address; "" if there is none.

    Attributes:
        compared_run: id of the run that is laid over the shown one in the charts; "" for none.
    """

    def __init__(
        self,
        follower: RunFollower,
        registry: RunRegistry | None = None,
        requested_run: str = "",
    ) -> None:
        self.follower = follower
        self.registry = registry
        self.requested_run = requested_run
        self.compared_run = ""

    def update(self) -> None:
        """Select a run as soon as there is one, and mark the selected run as shown."""
        if self.registry is not None and not self.follower.run_id:
            found = self.registry.find_follower(self.requested_run) or self.registry.find_follower()
            self.follower = found or self.follower
        elif self.registry is not None:
            self.follower = self.registry.find_resuming_follower(self.follower) or self.follower
        self.follower.last_shown = time.monotonic()
        if self.compared_run and self.registry is not None:
            self.registry.keep_following(self.compared_run)

    def select(self, run_id: str) -> None:
        """Show the run with this id. Unknown ids are ignored."""
        found = self.registry.find_follower(run_id) if self.registry is not None else None
        if found is not None:
            self.follower = found

    @property
    def problem(self) -> str:
        """Why there is nothing to show, as a sentence; "" if there is no problem."""
        return self.follower.problem or ("" if self.registry is None else self.registry.problem)

    def available_runs(self) -> list[Connection]:
        """Return the runs that can be shown: the live runs, newest first, and the selected one."""
        runs = [] if self.registry is None else list(self.registry.live)
        selected = self.follower.connection
        if selected is not None and all(one.run != selected.run for one in runs):
            runs.append(selected)
        return runs

    # The run that is laid over the shown one

    def compare(self, run_id: str) -> None:
        """Lay a run over the shown one in the charts; "" for none. Unknown ids are ignored."""
        known = run_id in {one.run for one in self.comparable_runs()}
        if not run_id or known:
            self.compared_run = run_id

    def compared_state(self) -> RunState | None:
        """Return the state of the run that is laid over the shown one; None without one."""
        if self.registry is None or self.compared_run in ("", self.follower.run_id):
            return None
        return self.registry.state(self.compared_run)

    @property
    def compared_name(self) -> str:
        """Name of the run that is laid over the shown one; "" without one."""
        state = self.compared_state()
        return "" if state is None else state.connection.title

    def comparable_names(self) -> dict[str, str]:
        """Return the names of the runs that can be laid over the shown one, by id."""
        return {one.run: one.title for one in self.comparable_runs()}

    def comparable_runs(self) -> list[Connection]:
        """Return the other runs whose curves are known or can be: live runs, and ended ones."""
        runs = [] if self.registry is None else self.registry.known_runs()
        return [one for one in runs if one.run != self.follower.run_id]

    def next_run(self) -> Connection | None:
        """Return the newest other run once the selected run has ended, or else None."""
        if (
            self.registry is None
            or not self.follower.run_id
            or not self.follower.run_status().has_ended
        ):
            return None
        return next((one for one in self.registry.live if one.run != self.follower.run_id), None)
