"""Finds a run, follows it, and finds the next one. One per server process, shared by all tabs."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from revacnn_lightning.errors import ConnectionFileError, ProtocolError
from revacnn_lightning.protocol import connection as connections
from revacnn_lightning.protocol.client import Run
from revacnn_lightning.protocol.connection import Connection
from revacnn_lightning.protocol.requests import Edit, RequestBody

from .opened import OpenedLayers
from .run_state import RunState

__all__ = ["Health", "Hub", "Watcher"]

log = logging.getLogger(__name__)

SEEK_SECONDS = 1.0  # how often we look for runs
SILENT_SECONDS = 5.0  # the training says something about once a second


class Watcher(Protocol):
    """Wants to know when there may be something new."""

    def notice(self) -> None: ...


class Health(Struct, frozen=True):
    """What the header says of the run. ``kind`` picks the colour of its dot."""

    kind: str  # waiting, connecting, training, validating, paused, silent, finished, failed, gone
    text: str

    @property
    def ended(self) -> bool:
        """Nothing can be asked of this run any more."""
        return self.kind in ("finished", "failed", "gone")


class Hub:
    """Holds the run that this server shows.

    Attributes:
        state: what is known of the run; None before the first one. A new object for a new run.
        runs: the live runs of this machine, newest first.
        problem: why there is no run yet, in a sentence.
        opened: the layers that tabs show in detail.
        watchers: told after everything that was read, and at every tick; held weakly.
        on_sockets: called with the sockets to be read from now on, before old ones are closed.
        on_request: called when something was sent; that may swallow the sign of an arrival.
    """

    def __init__(self, connection_file: Path | None = None) -> None:
        self.connection_file = connection_file
        self.state: RunState | None = None
        self.runs: list[Connection] = []
        self.problem = ""
        self.opened = OpenedLayers()
        self.watchers: weakref.WeakSet[Watcher] = weakref.WeakSet()
        self.on_sockets: Callable[[list[int]], None] = lambda _: None
        self.on_request: Callable[[], None] = lambda: None
        self._run: Run | None = None
        self._chosen = ""  # the run a person has chosen, as long as it lives
        self._sought = 0.0

    def tick(self) -> None:
        """Look for a run now and then, and after layouts. Called several times a second."""
        now = time.monotonic()
        if now - self._sought >= SEEK_SECONDS:
            self._sought = now
            self._seek()
        self._take()
        if self._run is not None and self.state is not None:
            self.opened.tick(self.state, self._run.request)
        self._tell()

    def read(self) -> None:
        """Take what has arrived."""
        if self._take():
            self._tell()

    def _take(self) -> bool:
        if self._run is None or self.state is None:
            return False
        messages = self._run.poll()
        for message in messages:
            self.state.take(message)
            self.opened.take(message, self.state)
        return bool(messages)

    def _tell(self) -> None:
        for watcher in list(self.watchers):
            watcher.notice()

    def request(self, edit: RequestBody, title: str, version: int | None) -> str:
        """Ask the training for something; its reply becomes a record of the run state.

        Raises:
            ProtocolError: there is no run, or it cannot be reached.
        """
        if self._run is None or self.state is None:
            raise ProtocolError("no training is attached")
        request_id = self._run.request(edit, version=version)
        self.state.sent(request_id, title)
        self.on_request()
        return request_id

    def preview(self, edit: Edit, version: int | None) -> str:
        """Ask what a change would do; the answer becomes one of the run state's plans.

        Raises:
            ProtocolError: there is no run, or it cannot be reached.
        """
        if self._run is None:
            raise ProtocolError("no training is attached")
        request_id = self._run.request(edit, version=version, dry_run=True)
        self.on_request()
        return request_id

    def follow(self, run_id: str) -> None:
        """Show this run, which must be among `runs`, from now on."""
        for connection in self.runs:
            if connection.run == run_id:
                self._chosen = run_id
                self._attach(connection)

    def health(self) -> Health:
        """What the run is doing, as far as we know."""
        run = self._run
        if run is None:
            return Health("waiting", "waiting for a training")
        status = run.status
        if status is not None and status.state == "finished":
            return Health("finished", f"finished at batch {status.step:,}".replace(",", " "))
        if status is not None and status.state == "failed":
            return Health("failed", f"failed: {status.detail}" if status.detail else "failed")
        if run.connection.process_is_gone():
            return Health("gone", "the training process ended without a word")
        if run.structure is None:
            return Health("connecting", "attached, waiting for the first answer")
        if run.silent_for() > SILENT_SECONDS:
            return Health("silent", f"no word for {run.silent_for():.0f} s")
        if status is None:
            return Health("training", "training")
        return Health(status.state, status.detail or status.state)

    def close(self) -> None:
        """Detach from the run, and compute nothing any more."""
        self._detach()
        self.opened.close()

    def _detach(self) -> None:
        self.opened.forget()
        if self._run is not None:
            self.on_sockets([])
            self._run.close()
            self._run = None

    def _seek(self) -> None:
        self.runs = self._find()
        current = "" if self._run is None else self._run.connection.run
        if self._run is not None and self._chosen == current and not self._run.is_gone():
            return
        others = [connection for connection in self.runs if connection.run != current]
        if others and (self._run is None or self._run.is_gone()):
            self._attach(others[0])

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
        if found.process_is_gone():
            self.problem = f"The training of {self.connection_file} has ended."
            return []
        self.problem = ""
        return [found]

    def _attach(self, connection: Connection) -> None:
        if self._run is not None and self._run.connection.run == connection.run:
            return
        self._detach()
        log.info("Attaching to run %s (%s)", connection.run, connection.model)
        try:
            self._run = Run(connection)
        except ConnectionFileError as error:
            self.problem = str(error)
            return
        self.state = RunState(connection)
        self.on_sockets(self._run.sockets())
