"""The connection to one run, shared by all tabs of the server that show it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np

from revacnn_lightning.client.run_messages import NonblockingRunClient
from revacnn_lightning.errors import ConnectionFileError, ProtocolError, RecordingError
from revacnn_lightning.protocol.access_messages import Access
from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.requests import (
    InspectFilter,
    PaintImage,
    Patch,
    RequestBody,
    SendHistory,
    ShowPicture,
)
from revacnn_lightning.recording.replay import ReplayedMessages

from ..rendering.formatting import format_count, format_time_of_day
from .class_requests import ClassResponseFetcher
from .filter_inspections import FilterInspectionFetcher
from .filter_prices import FilterPriceFetcher
from .growth_requests import GrowthGainFetcher
from .image_passes import ImagePassFetcher
from .layer_details import LayerDetailFetcher
from .own_images import OwnImageSender
from .rank_requests import LayerRankStatisticsFetcher
from .run_health import RunStatus
from .run_state import RunState
from .shown_verdicts import ShownVerdicts

__all__ = ["RunFollower"]

log = logging.getLogger(__name__)

UNREACHABLE_SECONDS = 1.0  # without a connection, before it is said: most are back sooner
EXIT_CHECK_SECONDS = 0.2  # between checks of the process: `run_status` is read ten times per frame

OpenRun = Callable[[Connection], NonblockingRunClient | ReplayedMessages]


class RunFollower:
    """Keeps the state of one run, and requests what tabs show, as `receive` and `tick` are called.

    The state remains available after the run has ended.

    Args:
        connection: the connection of the run; None for a placeholder without a run.
        layer_details: the details to use, for example with a worker that is already warm.
        open_run: attaches to the run, or opens its recording.
        earlier: the state of the run that this one resumes from a checkpoint; None if unknown.

    Attributes:
        state: what is known about the run; None without a run.
        problem: why attaching failed; "" if it did not.
        layer_details: details of the layers that tabs show.
        inspections: inspections of the filters that tabs show.
        image_passes: inputs on their way through the network, as tabs show them.
        filter_prices: what removing each filter costs, as tabs show it.
        classes: how filters respond to classes, as tabs show it.
        verdicts: the verdicts on the network, as tabs show them.
        growth: where one more filter would help most, as tabs have requested it.
        ranks: what each rank has recorded of a layer, as tabs show it.
        own_images: images that tabs make.
        last_shown: when a tab last showed the run (monotonic).
        on_messages: called after messages were received.
        on_request_sent: called after a request was sent. Sending may consume the readiness
            notification of an incoming message.
        on_close: called before the sockets are closed.
    """

    def __init__(
        self,
        connection: Connection | None = None,
        layer_details: LayerDetailFetcher | None = None,
        open_run: OpenRun = NonblockingRunClient,
        earlier: RunState | None = None,
    ) -> None:
        self.connection = connection
        self.state = None if connection is None else RunState(connection, earlier)
        self.problem = ""
        self.layer_details = LayerDetailFetcher() if layer_details is None else layer_details
        self.inspections = FilterInspectionFetcher()
        self.image_passes = ImagePassFetcher()
        self.filter_prices = FilterPriceFetcher()
        self.classes = ClassResponseFetcher()
        self.verdicts = ShownVerdicts()
        self.growth = GrowthGainFetcher()
        self.ranks = LayerRankStatisticsFetcher()
        self.own_images = OwnImageSender()
        self.last_shown = time.monotonic()
        self.on_messages: Callable[[], None] = _do_nothing
        self.on_request_sent: Callable[[], None] = _do_nothing
        self.on_close: Callable[[], None] = _do_nothing
        self._open_run = open_run
        self._run: NonblockingRunClient | ReplayedMessages | None = None
        self._history_requests = 0  # one, and one more for each interruption
        self._is_gone, self._exit_checked_at = False, float("-inf")
        if connection is not None:
            self._attach(connection)

    @property
    def run_id(self) -> str:
        """Id of the run; "" without a run."""
        return "" if self.connection is None else self.connection.run

    def tick(self) -> None:
        """Receive messages, request what tabs show, and update projections.

        Called several times a second.
        """
        self.receive()
        if self._run is not None and self.state is not None:
            self.layer_details.tick(self.state, self._run.request)
            self.inspections.tick(self.state, self._inspect)
            self.image_passes.tick(self.state, self._run.request)
            self.filter_prices.tick(self.state, self._run.request)
            self.classes.tick(self.state, self._run.request)
            self.verdicts.tick(self.state, self._run.request)
            self.growth.tick(self._run.request)
            self.ranks.tick(self.state, self._run.request)

    def receive(self) -> None:
        """Receive all pending messages. Never blocks."""
        if self._run is None or self.state is None:
            return
        messages = self._run.poll()
        for message in messages:
            self.state.receive(message)
            self.layer_details.receive(message, self.state)
            self.inspections.receive(message, self.state)
            self.image_passes.receive(message, self.state)
            self.filter_prices.receive(message, self.state)
            self.classes.receive(message, self.state)
            self.growth.receive(message, self.state)
            self.ranks.receive(message)
            refused = self.own_images.receive(message)
            if refused is not None:
                self.layer_details.replace_shown_image(*refused)
        self._request_history_if_due(self.state)
        if messages:
            self.on_messages()

    def file_descriptors(self) -> list[int]:
        """Return file descriptors that become readable when a message may be pending."""
        return [] if self._run is None else self._run.file_descriptors()

    def request(self, body: RequestBody, title: str, version: int | None) -> str:
        """Send a request; `RunState.requests` records it and its reply. Return its id.

        Raises:
            ProtocolError: there is no run, or it cannot be reached.
        """
        request_id = self._send(body, version)
        if self.state is not None:
            self.state.requests.add(request_id, title)
        return request_id

    def preview(self, body: RequestBody, version: int | None) -> str:
        """Request the plan of an edit, of a trial, or of clipping. Return the id of the request.

        The plan appears in ``state.requests.plans``.

        Raises:
            ProtocolError: there is no run, or it cannot be reached.
        """
        return self._send(body, version, dry_run=True)

    def show_picture(self, pixels: np.ndarray) -> None:
        """Use a picture, uint8 (H, W, 3), as the input that all views show."""
        image = self.own_images.send_picture(pixels, self._send_image)
        if image is not None:
            self.layer_details.show_image(image)

    def paint_image(self, patches: Sequence[Patch]) -> None:
        """Paint patches over the shown image, in all views; without any, show the image itself."""
        shown = self.layer_details.image
        self.layer_details.show_image(self.own_images.paint(shown, patches, self._send_image))

    def run_status(self) -> RunStatus:
        """Return what the run is doing, as far as known."""
        run = self._run
        if run is None:
            return RunStatus("waiting", self.problem or "waiting for a training")
        if isinstance(run, ReplayedMessages):
            return RunStatus("recording", run.describe())
        status = run.status
        if status is not None and status.state == "finished":
            return RunStatus("finished", f"finished at batch {format_count(status.step)}")
        if status is not None and status.state == "failed":
            return RunStatus("failed", f"failed: {status.detail}" if status.detail else "failed")
        if self._has_exited(run.connection):
            text = f"exited unexpectedly; last message at {self._last_message()}"
            problem = run.ranks.problem() if run.ranks.has_lost_rank else ""
            return RunStatus("gone", f"{problem}; the run {text}" if problem else text)
        if run.is_key_refused():
            return RunStatus("refused", f"the run does not admit the key {run.access.key!r}")
        is_unreachable = run.seconds_unreachable() > UNREACHABLE_SECONDS
        if run.structure is None:
            return RunStatus("connecting", _first_reply(run, is_unreachable=is_unreachable))
        if problem := run.ranks.problem():
            return RunStatus("silent", problem)
        if is_unreachable:
            text = f"unreachable, reconnecting; last message at {self._last_message()}"
            return RunStatus("unreachable", text)
        if run.is_silent():
            silence = run.seconds_since_last_message()
            text = f"no message for {silence:.0f} s, since {self._last_message()}"
            return RunStatus("silent", text)
        if status is None:
            return RunStatus("training", "training")
        text = f"{status.state} · {status.detail}" if status.detail else status.state
        return RunStatus(status.state, text)

    @property
    def access(self) -> Access | None:
        """The key that this server has for the run, and what it may do; None without a run."""
        return None if self._run is None else self._run.access

    def close(self) -> None:
        """Detach from the run and stop computing projections."""
        self.on_close()
        if self._run is not None:
            self._run.close()
            self._run = None
        self.verdicts.close()
        self.layer_details.close()

    def _has_exited(self, connection: Connection) -> bool:
        """Return whether the process had exited at most `EXIT_CHECK_SECONDS` ago."""
        now = time.monotonic()
        if now - self._exit_checked_at >= EXIT_CHECK_SECONDS:
            self._is_gone, self._exit_checked_at = connection.has_exited(), now
        return self._is_gone

    def _attach(self, connection: Connection) -> None:
        log.info("Attaching to run %s (%s)", connection.run, connection.model)
        try:
            self._run = self._open_run(connection)
        except (ConnectionFileError, RecordingError) as error:
            self.problem = str(error)

    def _send(self, body: RequestBody, version: int | None, *, dry_run: bool = False) -> str:
        if self._run is None:
            raise ProtocolError("no training is attached")
        request_id = self._run.request(body, version=version, dry_run=dry_run)
        self.on_request_sent()
        return request_id

    def _request_history_if_due(self, state: RunState) -> None:
        """Request the history of the run as soon as its layers are known, and after a cut."""
        run = self._run
        if run is None or state.structure is None:
            return
        if self._history_requests > run.interruption_count:
            return
        if self._history_requests:
            state.note_interruption()
        self._history_requests = run.interruption_count + 1
        try:
            self._send(SendHistory(), None)
        except ProtocolError as error:
            log.warning("The history of run %s is not shown: %s", self.run_id, error)

    def _send_image(self, request: ShowPicture | PaintImage) -> str:
        return self._send(request, None)

    def _inspect(self, request: InspectFilter, version: int) -> str:
        return self._send(request, version)

    def _last_message(self) -> str:
        """Return the time of the last message, and the batch of the last snapshot."""
        snapshot = None if self.state is None else self.state.snapshot
        batch = "" if snapshot is None else f" at batch {format_count(snapshot.step)}"
        silence = 0.0 if self._run is None else self._run.seconds_since_last_message()
        return f"{format_time_of_day(time.time() - silence)}{batch}"


def _first_reply(run: NonblockingRunClient, *, is_unreachable: bool) -> str:
    """Return what the first reply of a run is waiting for."""
    if run.refusal:
        return f"the run refuses this viewer: {run.refusal}"
    connection = run.connection
    if not is_unreachable:
        return "attached, waiting for the first reply"
    if connection.is_local():
        return "connecting to the run"
    return f"cannot reach the run yet; keep this command running here: {connection.ssh_command()}"


def _do_nothing() -> None:
    pass
