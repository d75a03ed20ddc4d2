"""One training run: what it tells its viewers, and what it lets them change.

Knows no Lightning: the callback feeds it from Lightning's hooks, a hand-written loop could feed
it just as well. Each training batch is ``before_batch`` ... ``after_batch``.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from revacnn_lightning.protocol.connection import Connection
from revacnn_lightning.protocol.messages import Message, Request
from revacnn_lightning.protocol.requests import Command, Edit
from revacnn_lightning.runtime.batch import BatchMetadata, BatchRate, Progress, snapshot
from revacnn_lightning.runtime.controls import Controls
from revacnn_lightning.runtime.filter_inspection import InspectionCollector
from revacnn_lightning.runtime.layer_details import Forward, Images, LayerDetailCollector, no_images
from revacnn_lightning.runtime.pause import Pause
from revacnn_lightning.runtime.request_handler import RequestHandler
from revacnn_lightning.runtime.request_queue import PendingRequest, RequestQueue
from revacnn_lightning.runtime.server import Endpoints, RunServer
from revacnn_lightning.runtime.status import State, StatusPublisher
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.telemetry import Recorder

__all__ = ["Session"]

PAUSE_POLL_SECONDS = 0.02  # how often a paused run looks for requests


class Session:
    """The wire, the recorder and the editor of one run.

    Args:
        model: the module whose convs are watched and steered.
        editor: changes the model and its optimizers.
        recorder: reads the statistics.
        controls: holds, saves and ends the training.
        endpoints: where to listen.
        images: gives an image of the validation data by its index.
        forward: takes a batch of one image through the model; None: it cannot be done.
        cannot_look: why the model must not be run in between, for what its filters look for.

    Attributes:
        recording: whether the batch under way is recorded, because somebody listens.
    """

    def __init__(
        self,
        model: nn.Module,
        editor: Editor,
        recorder: Recorder,
        controls: Controls,
        endpoints: Endpoints,
        *,
        images: Images = no_images,
        forward: Forward | None = None,
        inspection_refusal: str = "",
    ) -> None:
        self.run = uuid.uuid4().hex[:12]
        self.model = model
        self.editor = editor
        self.recorder = recorder
        self.controls = controls
        self.recording = False  # this batch
        self._progress = Progress()
        self._rate = BatchRate()
        self._watched = False  # whether any viewer ever said hello
        self._pause = Pause()
        self._opened = LayerDetailCollector(recorder, model, images, forward)
        self._looking = InspectionCollector(recorder, model, images, forward, inspection_refusal)
        self._station = RunServer(self.run, type(model).__name__, endpoints)
        self._notices = StatusPublisher(
            self.run,
            model,
            editor,
            recorder,
            optimizers=lambda: controls.optimizers,
            publish=self._station.publisher.publish,
        )
        self._inbox = RequestQueue(self._station.server)
        self._answering = RequestHandler(
            self.run,
            editor,
            recorder,
            self._notices,
            controls,
            self._pause,
            self._opened,
            self._looking,
        )

    # ------------------------------------------------------------------ life

    @property
    def version(self) -> int:
        """Of the published structure."""
        return self._notices.version

    @property
    def connection(self) -> Connection:
        """What a viewer needs to know in order to attach."""
        return self._station.connection

    @property
    def file(self) -> Path:
        """The connection file."""
        return self._station.file

    def close(self, state: State = "finished", detail: str = "") -> None:
        """Say the last word, leave nothing on the model, on the disk or on the ports."""
        try:
            for recording in self.recorder.flush():
                self._publish(snapshot(self.run, recording))
            if self._notices.state not in ("finished", "failed"):
                self._inbox.refuse_all("the training has ended", self.version)
                self._notices.beat(state, detail)
        finally:
            self.recorder.detach()
            self.editor.close()
            self._station.close()

    # ------------------------------------------------------------------ a batch

    def before_batch(
        self,
        progress: Progress,
        probe: Callable[[], ForwardProbe],
        *,
        may_edit: bool = True,
        edit_refusal: str = "",
        loss_scale: Tensor | float = 1.0,
        images: Callable[[], Tensor | None] = lambda: None,
    ) -> None:
        """Carry out what was asked for, then begin to record.

        Args:
            progress: where the training is.
            probe: makes the real forwards on samples of this batch; called only when needed.
            may_edit: False in the middle of an accumulation window: edits wait for the next one.
            cannot_edit: why this training cannot be changed at all; "" if it can.
            loss_scale: what mixed precision multiplies the loss by in this batch.
            images: of the batch, (B, channels, H, W), for what is shown of layers that are opened
                while the run is paused.
        """
        self._progress, self._answering.edit_refusal = progress, edit_refusal
        self._notices.step = progress.step

        def may(request: Request) -> bool:
            return may_edit or request.dry_run or isinstance(request.body, Command)

        while True:
            self.take_requests()
            self._inbox.serve(lambda request: self._answering.answer(request, probe), may)
            if self._watched:
                self._notices.learn_topology(probe)
            if not self._pause.holds():
                break
            self._show_meanwhile(images)
            self._notices.beat_if_due("paused")
            time.sleep(PAUSE_POLL_SECONDS)
        recorded, self.recording = self.recording, self._is_heard()
        if self.recording:
            self.recorder.begin_batch(loss_scale=loss_scale)
        elif recorded:
            self.recorder.release_tensors()

    def after_batch(
        self,
        *,
        loss: Tensor | float | None,
        learning_rates: list[float],
        metrics: dict[str, float],
        loss_factor: float = 1.0,
        images: Callable[[], Tensor | None] = lambda: None,
    ) -> None:
        """Publish what the batch told, if it was recorded.

        Args:
            loss: of the batch, as the backward pass began from it (before mixed precision's scale).
            learning_rates: of each parameter group of each optimizer.
            metrics: what the module has logged.
            loss_factor: what the loss, and with it all gradients, was multiplied by:
                1 / accumulated batches. It is divided out.
            images: of the batch, (B, channels, H, W), for what is shown of opened layers.
        """
        rate = self._rate.tick()
        if self.recording:
            if isinstance(loss, Tensor):
                loss = loss.detach().clone()
            facts = BatchMetadata(self._progress, rate, loss, loss_factor, learning_rates, metrics)
            self._tell(facts, images)
        self._notices.beat_if_due("training")

    def _is_heard(self) -> bool:
        """Whether anybody would hear what the batch tells. Else gathering it is spared.

        A first batch shows the order of the layers. What a viewer that is gone had opened is still
        followed until its interest expires.
        """
        recorder = self.recorder
        return (
            self._notices.structure is None
            or self._station.publisher.has_subscribers()
            or bool(recorder.details.layers or recorder.responses.filters)
        )

    def _tell(self, facts: BatchMetadata, images: Callable[[], Tensor | None]) -> None:
        """Publish what the recorded batch told."""
        loss_factor = facts.loss_factor
        recording = self.recorder.end_batch(grad_scale=loss_factor, metadata=facts)
        if self._notices.follow_order():
            self._looking.forget()
        facts.version = self.version
        if recording is not None:
            self._publish(snapshot(self.run, recording))
        for detail in self._opened.read(
            run=self.run,
            version=self.version,
            step=self._progress.step,
            image=lambda: _first(images()),
        ):
            self._publish(detail)
        for inspection in self._looking.read(
            run=self.run, version=self.version, step=self._progress.step, images=images
        ):
            self._publish(inspection)

    def during_validation(self) -> None:
        """Answer what needs neither a training batch nor a forward of the model: it may be long.

        Those are greetings, most commands, and plans of a network whose channels were traced.
        """
        self.take_requests()
        nothing, answering = ForwardProbe(forwards=()), self._answering
        self._inbox.serve(
            lambda request: answering.answer(request, lambda: nothing), answering.is_easy
        )
        self._notices.beat_if_due("validating")

    # ------------------------------------------------------------------ requests

    def take_requests(self) -> None:
        """Take what has arrived: greetings are answered at once, the rest stays."""
        self._inbox.take(self._greet)

    def submit(self, edit: Edit, *, dry_run: bool = False) -> PendingRequest:
        """Ask for an edit from inside the process, any thread; done at the next batch boundary."""
        return self._inbox.submit(edit, dry_run=dry_run)

    def _greet(self, client: bytes) -> None:
        self._watched = True
        for message in self._notices.greeting():
            self._station.server.reply(client, message)

    def _show_meanwhile(self, images: Callable[[], Tensor | None]) -> None:
        """While the run is paused: what is chosen to be looked at is shown at once."""
        run, version, step = self.run, self.version, self._progress.step
        for detail in self._opened.read_between(
            run=run, version=version, step=step, image=lambda: _first(images())
        ):
            self._publish(detail)
        for inspection in self._looking.read_between(
            run=run, version=version, step=step, images=images
        ):
            self._publish(inspection)

    # ------------------------------------------------------------------ what is published

    def _publish(self, message: Message) -> None:
        self._station.publisher.publish(message)


def _first(images: Tensor | None) -> Tensor | None:
    return images[0] if images is not None and images.ndim == 4 and len(images) else None
