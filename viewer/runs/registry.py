"""Discovers the runs on this machine and keeps a follower for each run in use."""

from __future__ import annotations

import time
import weakref
from pathlib import Path
from typing import Protocol

from revacnn_lightning.errors import ConnectionFileError
from revacnn_lightning.protocol import connection_file
from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.lineage import find_resuming_run
from revacnn_lightning.protocol.run_discovery import find_unusable_connection_files, list_runs

from .layer_details import LayerDetailFetcher
from .recordings import Recordings
from .run_follower import RunFollower
from .run_state import RunState

__all__ = ["RunRegistry", "UpdateListener"]

DISCOVERY_SECONDS = 1.0
MAX_ENDED_RUNS = 8  # whose curves are kept to be compared with
UNUSED_SECONDS = 60.0  # long enough for a page reload not to lose the recorded histories


class UpdateListener(Protocol):
    """Notified when there may be something new to show."""

    def on_update(self) -> None: ...


def _why_no_run() -> str:
    for reason in find_unusable_connection_files().values():
        return f"A training cannot be shown: {reason}."
    return "No training is running on this machine yet."


class RunRegistry:
    """The runs of a server process.

    The newest run is always followed, so that a page opened later shows its whole history. Other
    runs are followed while a tab shows them.

    Args:
        connection_file: the connection file of the only run to show; None to show all runs of this
            machine.
        recordings: recordings to show instead of runs.

    Attributes:
        live: the connections of the running trainings, newest first.
        problem: why there is no run; "" if there is one.
        placeholder: the follower of a tab that has no run yet.
        observers: notified after messages were received, and at every tick; held weakly.
    """

    def __init__(
        self, connection_file: Path | None = None, recordings: Recordings | None = None
    ) -> None:
        self.connection_file = connection_file
        self._recordings = recordings
        self.live: list[Connection] = []
        self.problem = ""
        self.placeholder = RunFollower()
        self.observers: weakref.WeakSet[UpdateListener] = weakref.WeakSet()
        self._followers: dict[str, RunFollower] = {}
        self._ended: dict[str, RunState] = {}  # runs without a follower, the oldest first
        self._newest = ""
        self._last_discovery = 0.0
        self._warm_details: LayerDetailFetcher | None = None  # for the next run: slow to warm up

    def start(self) -> None:
        """Start a worker process for the first run."""
        self._warm_details = LayerDetailFetcher()
        self._warm_details.start()

    def tick(self) -> None:
        """Receive messages, and from time to time discover runs. Called several times a second."""
        now = time.monotonic()
        if now - self._last_discovery >= DISCOVERY_SECONDS:
            self._last_discovery = now
            self._discover()
            self._detach_unused(now)
        for follower in self.followers():
            follower.tick()
        self._notify_observers()

    def followers(self) -> list[RunFollower]:
        """Return the followers of all runs in use."""
        return list(self._followers.values())

    def find_follower(self, run_id: str = "") -> RunFollower | None:
        """Return the follower of a run, creating it for a live run; None for an unknown run.

        Args:
            run_id: id of the run; "" for the newest.
        """
        run_id = run_id or self._newest
        if run_id not in self._followers:
            if run_id and all(one.run != run_id for one in self.live):
                self.live = self._list_live()  # it may have started since the last discovery
            connection = next((one for one in self.live if one.run == run_id), None)
            if connection is None:
                return None
            self._followers[run_id] = self._follow(connection)
            self._followers[run_id].on_messages = self._notify_observers
            self._warm_details = None
        return self._followers[run_id]

    def _follow(self, connection: Connection) -> RunFollower:
        earlier = self._earlier(connection)
        if self._recordings is None:
            return RunFollower(connection, self._warm_details, earlier=earlier)
        return RunFollower(connection, self._warm_details, self._recordings.open)

    # Runs that are resumed from a checkpoint

    def find_resuming_follower(self, follower: RunFollower) -> RunFollower | None:
        """Return the follower of the run that resumes an ended or unreachable one.

        None if no such run has replied yet.
        """
        connection = follower.connection
        resumed = None if connection is None else find_resuming_run(connection, self.live)
        if resumed is None or not follower.run_status().refusal:
            return None
        found = self.find_follower(resumed.run)
        has_replied = found is not None and found.state is not None and found.state.structure
        return found if has_replied else None

    def _earlier(self, connection: Connection) -> RunState | None:
        """Return the newest known state of the runs that a run may resume; None without one."""
        known = [one.state for one in self._followers.values() if one.state is not None]
        states = {state.connection.run: state for state in (*self._ended.values(), *known)}
        earlier = [
            state
            for state in states.values()
            if find_resuming_run(state.connection, [connection]) is not None
        ]
        return max(earlier, key=lambda state: state.connection.start_time, default=None)

    # Comparing

    def known_runs(self) -> list[Connection]:
        """Return the runs whose curves are known or can be: live ones, then those that ended."""
        runs = {one.run: one for one in self.live}
        states = [one.state for one in self._followers.values() if one.state is not None]
        for state in (*states, *reversed(self._ended.values())):
            runs.setdefault(state.connection.run, state.connection)
        return list(runs.values())

    def state(self, run_id: str) -> RunState | None:
        """Return what is known about a run, also after its end; None if nothing is."""
        follower = self._followers.get(run_id)
        return self._ended.get(run_id) if follower is None else follower.state

    def keep_following(self, run_id: str) -> None:
        """Follow a live run for as long as this is called at least every `UNUSED_SECONDS`."""
        if run_id in self._followers or any(one.run == run_id for one in self.live):
            follower = self.find_follower(run_id)
            if follower is not None:
                follower.last_shown = time.monotonic()

    def close(self) -> None:
        """Detach from every run."""
        for follower in (*self._followers.values(), self.placeholder):
            follower.close()
        self._followers.clear()
        if self._warm_details is not None:
            self._warm_details.close()

    def _notify_observers(self) -> None:
        for observer in list(self.observers):
            observer.on_update()

    def _discover(self) -> None:
        self.live = self._list_live()
        newest = self._followers.get(self._newest)
        if self.live and (newest is None or newest.run_status().has_ended):
            self._newest = self.live[0].run
            self.find_follower(self._newest)

    def _detach_unused(self, now: float) -> None:
        for run, follower in list(self._followers.items()):
            if run != self._newest and now - follower.last_shown > UNUSED_SECONDS:
                if follower.state is not None and follower.run_status().has_ended:
                    self._keep_curves(run, follower.state)
                follower.close()
                del self._followers[run]

    def _keep_curves(self, run: str, state: RunState) -> None:
        """Keep what can be compared of a run that has ended, without the large histories."""
        state.histories.drop_filter_history()
        self._ended[run] = state
        while len(self._ended) > MAX_ENDED_RUNS:
            del self._ended[next(iter(self._ended))]

    def _list_live(self) -> list[Connection]:
        if self._recordings is not None:
            self.problem = self._recordings.problem
            return self._recordings.connections
        if self.connection_file is None:
            try:
                runs = list_runs()
            except ConnectionFileError as error:
                self.problem = str(error)
                return []
            self.problem = "" if runs else _why_no_run()
            return runs
        try:
            connection = connection_file.read(self.connection_file)
        except ConnectionFileError as error:
            self.problem = str(error)
            return []
        if connection.has_exited():
            self.problem = f"The training of {self.connection_file} has ended."
            return []
        self.problem = ""
        return [connection]
