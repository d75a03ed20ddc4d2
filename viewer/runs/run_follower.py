"""Follows one run. One per run and server process, shared by all tabs that show it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from msgspec import Struct

from revacnn_lightning.errors import ConnectionFileError, ProtocolError
from revacnn_lightning.protocol.client import Run
from revacnn_lightning.protocol.connection import Connection
from revacnn_lightning.protocol.requests import Edit, InspectFilter, RequestBody

from ..rendering.formatting import clock, count
from .filter_inspections import FilterInspections
from .layer_details import LayerDetails
from .run_state import RunState

__all__ = ["RunFollower", "RunHealth"]

log = logging.getLogger(__name__)

SILENT_SECONDS = 5.0  # the training says something about once a second


class RunHealth(Struct, frozen=True):
    """What the header says of the run. ``kind`` picks the colour of its dot."""

    kind: str  # waiting, connecting, training, validating, paused, silent, finished, failed, gone
    text: str

    @property
    def ended(self) -> bool:
        """Nothing can be asked of this run any more."""
        return self.kind in ("finished", "failed", "gone")


class RunFollower:
    """Holds a run, also after it has ended.

    Args:
        connection: where the run is; None: there is none yet, and nothing can be asked.
        opened: what holds the layers that tabs show in detail.

    Attributes:
        state: what is known of the run.
        problem: why it cannot be attached to, in a sentence.
        shown: when a tab last showed it (monotonic).
        opened: the layers that tabs show in detail.
        inspected: the filters of which tabs show what they look for.
        on_news: called when something has been read.
        on_request: called when something was sent; that may swallow the sign of an arrival.
        on_close: called before the sockets are closed.
    """

    def __init__(
        self, connection: Connection | None = None, opened: LayerDetails | None = None
    ) -> None:
        self.connection = connection
        self.state = None if connection is None else RunState(connection)
        self.problem = ""
        self.opened = LayerDetails() if opened is None else opened
        self.inspected = FilterInspections()
        self.shown = time.monotonic()
        self.on_news: Callable[[], None] = _nothing
        self.on_request: Callable[[], None] = _nothing
        self.on_close: Callable[[], None] = _nothing
        self._run: Run | None = None
        if connection is not None:
            self._attach(connection)

    @property
    def run(self) -> str:
        """The id of the run; "" if there is none."""
        return "" if self.connection is None else self.connection.run

    def tick(self) -> None:
        """Look after messages and layouts. Called several times a second."""
        self.read()
        if self._run is not None and self.state is not None:
            self.opened.tick(self.state, self._run.request)
            self.inspected.tick(self.state, self._inspect)

    def read(self) -> None:
        """Take what has arrived."""
        if self._run is None or self.state is None:
            return
        messages = self._run.poll()
        for message in messages:
            self.state.take(message)
            self.opened.take(message, self.state)
            self.inspected.take(message, self.state)
        if messages:
            self.on_news()

    def sockets(self) -> list[int]:
        """Descriptors that become readable when there may be something to read; see `Run`."""
        return [] if self._run is None else self._run.file_descriptors()

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

    def health(self) -> RunHealth:
        """What the run is doing, as far as we know."""
        run = self._run
        if run is None:
            return RunHealth("waiting", self.problem or "waiting for a training")
        status = run.status
        if status is not None and status.state == "finished":
            return RunHealth("finished", f"finished at batch {count(status.step)}")
        if status is not None and status.state == "failed":
            return RunHealth("failed", f"failed: {status.detail}" if status.detail else "failed")
        if run.connection.has_exited():
            return RunHealth("gone", f"ended without a word; last heard {self._heard()}")
        if run.structure is None:
            return RunHealth("connecting", "attached, waiting for the first answer")
        if run.seconds_since_last_message() > SILENT_SECONDS:
            return RunHealth(
                "silent",
                f"no word for {run.seconds_since_last_message():.0f} s, since {self._heard()}",
            )
        if status is None:
            return RunHealth("training", "training")
        return RunHealth(status.state, status.detail or status.state)

    def _heard(self) -> str:
        """When the run was last heard of, and at which batch."""
        snapshot = None if self.state is None else self.state.snapshot
        at = "" if snapshot is None else f" at batch {count(snapshot.step)}"
        silent = 0.0 if self._run is None else self._run.seconds_since_last_message()
        return f"{clock(time.time() - silent)}{at}"

    def close(self) -> None:
        """Detach from the run, and compute nothing any more."""
        self.on_close()
        if self._run is not None:
            self._run.close()
            self._run = None
        self.opened.close()

    def _inspect(self, request: InspectFilter, version: int) -> str:
        if self._run is None:
            raise ProtocolError("no training is attached")
        request_id = self._run.request(request, version=version)
        self.on_request()
        return request_id

    def _attach(self, connection: Connection) -> None:
        log.info("Attaching to run %s (%s)", connection.run, connection.model)
        try:
            self._run = Run(connection)
        except ConnectionFileError as error:
            self.problem = str(error)


def _nothing() -> None:
    pass
