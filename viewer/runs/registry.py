"""Finds the runs of this machine, and holds a hub for each that is shown or may be next."""

from __future__ import annotations

import time
import weakref
from pathlib import Path
from typing import Protocol

from revacnn_lightning.errors import ConnectionFileError
from revacnn_lightning.protocol import connection as connections
from revacnn_lightning.protocol.connection import Connection

from .layer_details import LayerDetails
from .run_follower import RunFollower

__all__ = ["RunObserver", "RunRegistry"]

SEEK_SECONDS = 1.0  # how often we look for runs
UNSEEN_SECONDS = 60.0  # a run that no tab shows is held so long: reloading the page loses nothing


class RunObserver(Protocol):
    """Wants to know when there may be something new."""

    def notice(self) -> None: ...


class RunRegistry:
    """One per server process.

    The newest run is followed even while nobody looks, so that a page that is opened later shows
    what happened before; so is each run that a tab shows. All others are let go.

    Attributes:
        live: the runs that are going on, newest first.
        problem: why there is none, in a sentence.
        nothing: the hub of a tab that has no run yet.
        watchers: told after everything that was read, and at every tick; held weakly.
    """

    def __init__(self, connection_file: Path | None = None) -> None:
        self.connection_file = connection_file
        self.live: list[Connection] = []
        self.problem = ""
        self.nothing = RunFollower()
        self.watchers: weakref.WeakSet[RunObserver] = weakref.WeakSet()
        self._hubs: dict[str, RunFollower] = {}
        self._newest = ""  # the run that is followed although nobody may look
        self._sought = 0.0
        self._warm: LayerDetails | None = None  # for the next run: its worker takes seconds

    def start(self) -> None:
        """Begin to warm up."""
        self._warm = LayerDetails()
        self._warm.start()

    def tick(self) -> None:
        """Take what has arrived; now and then look for runs. Called several times a second."""
        now = time.monotonic()
        if now - self._sought >= SEEK_SECONDS:
            self._sought = now
            self._seek()
            self._let_go(now)
        for hub in self.hubs():
            hub.tick()
        self._tell()

    def hubs(self) -> list[RunFollower]:
        """Those of all runs that are followed."""
        return list(self._hubs.values())

    def _tell(self) -> None:
        for watcher in list(self.watchers):
            watcher.notice()

    def find(self, run: str = "") -> RunFollower | None:
        """The hub of this run, live or still held; of the newest one, if none is named."""
        run = run or self._newest
        if run not in self._hubs:
            if run and all(one.run != run for one in self.live):
                self.live = self._find()  # it may have begun just now
            wanted = next((one for one in self.live if one.run == run), None)
            if wanted is None:
                return None
            self._hubs[run] = RunFollower(wanted, self._warm)
            self._hubs[run].on_news = self._tell
            self._warm = None
        return self._hubs[run]

    def close(self) -> None:
        """Detach from every run."""
        for hub in (*self._hubs.values(), self.nothing):
            hub.close()
        self._hubs.clear()
        if self._warm is not None:
            self._warm.close()

    def _seek(self) -> None:
        self.live = self._find()
        known = self._hubs.get(self._newest)
        if self.live and (known is None or known.health().ended):
            self._newest = self.live[0].run
            self.find(self._newest)

    def _let_go(self, now: float) -> None:
        for run, hub in list(self._hubs.items()):
            if run != self._newest and now - hub.shown > UNSEEN_SECONDS:
                hub.close()
                del self._hubs[run]

    def _find(self) -> list[Connection]:
        if self.connection_file is None:
            runs = connections.list_runs()
            self.problem = "" if runs else "No training is running on this machine yet."
            return runs
        try:
            found = connections.read(self.connection_file)
        except ConnectionFileError as error:
            self.problem = str(error)
            return []
        if found.has_exited():
            self.problem = f"The training of {self.connection_file} has ended."
            return []
        self.problem = ""
        return [found]
