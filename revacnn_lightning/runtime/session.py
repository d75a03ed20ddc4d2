"""One training run: what it publishes, and the requests that it handles.

This module does not know Lightning: the callback drives it from Lightning's hooks, and a training
loop of your own could drive it in the same way. Every training batch is ``begin_batch`` ...
``end_batch``.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from revacnn_lightning.history.history_recorder import HistoryRecorder
from revacnn_lightning.protocol.connection import Connection
from revacnn_lightning.protocol.messages import Message, Request, Structure, TrainingState
from revacnn_lightning.protocol.requests import (
    Command,
    InspectFilter,
    InspectLayer,
    RequestBody,
)
from revacnn_lightning.runtime.batch import (
    BatchContext,
    BatchMetadata,
    BatchRate,
    TrainingBatch,
    build_snapshot,
)
from revacnn_lightning.runtime.collector import Collector
from revacnn_lightning.runtime.controls import RunController, TrainingControls
from revacnn_lightning.runtime.filter_inspection import InspectionCollector
from revacnn_lightning.runtime.image_predictions import Forward, GetTruth, no_truth
from revacnn_lightning.runtime.layer_details import (
    GetImage,
    LayerDetailCollector,
    refuse_image,
)
from revacnn_lightning.runtime.metric_reader import (
    METRICS_INTERVAL,
    MetricReader,
    is_on_gpu,
    is_scalar,
    to_float,
)
from revacnn_lightning.runtime.request_handler import RequestHandler
from revacnn_lightning.runtime.request_queue import PendingRequest, RequestQueue
from revacnn_lightning.runtime.server import Endpoints, RunServer
from revacnn_lightning.runtime.status import StatusPublisher
from revacnn_lightning.steering import Editor
from revacnn_lightning.telemetry import Recorder, Recording

__all__ = ["Session"]

log = logging.getLogger(__name__)

LAYER_CHECK_SECONDS = 1.0  # between checks whether the model's code has replaced layers
PAUSE_POLL_SECONDS = 0.02  # how often a paused run checks for requests
REPLACED = "Layers replaced by the model's code"


class Session:
    """Publishes the telemetry of one run, and edits and controls it on request.

    Args:
        model: the module whose convolutions are monitored and steered.
        editor: edits the model and its optimizers.
        recorder: records the statistics.
        controls: saves and ends the training.
        endpoints: where to listen.
        get_image: returns an image of the validation data by its index.
        get_truth: returns the class of such an image.
        forward: runs the model on a batch of one image; None: this is not possible.
        inspection_refusal: why the model must not be run between two batches; "" if it may be.
        history: keeps a sample of the batches; None: no history is kept.

    Attributes:
        run: id of the run.
        recorder: see above.
        server: the sockets of the run.
        collectors: per type of inspection request, what collects the messages it selects.
        is_recording: whether the current batch is recorded.
    """

    def __init__(
        self,
        model: nn.Module,
        editor: Editor,
        recorder: Recorder,
        controls: TrainingControls,
        endpoints: Endpoints,
        *,
        get_image: GetImage = refuse_image,
        get_truth: GetTruth = no_truth,
        forward: Forward | None = None,
        inspection_refusal: str = "",
        history: HistoryRecorder | None = None,
    ) -> None:
        self.run = uuid.uuid4().hex[:12]
        self.recorder = recorder
        self.is_recording = False
        self._editor = editor
        self._history = history
        self._metrics = MetricReader()
        self._is_sample = False  # whether the history keeps the current batch
        self._last_reading = -METRICS_INTERVAL  # step at which metrics were read
        self._batch = TrainingBatch()
        self._rate = BatchRate()
        self._had_viewer = False
        self._next_layer_check = 0.0  # monotonic seconds
        self._controller = RunController(self.run, controls)
        details = LayerDetailCollector(recorder, model, get_image, forward, get_truth)
        self.collectors: dict[type, Collector] = {
            InspectLayer: details,
            InspectFilter: InspectionCollector(
                recorder, model, get_image, forward, inspection_refusal
            ),
        }
        self.server = RunServer(self.run, type(model).__name__, endpoints)
        self._status = StatusPublisher(
            self.run,
            model,
            editor,
            recorder,
            get_optimizers=lambda: controls.optimizers,
            get_group_notes=lambda: self._controller.overrides.notes,
            publish=self._publish,
        )
        self._queue = RequestQueue(self.server.request_server)
        self._handler = RequestHandler(
            editor,
            recorder,
            self._status,
            self._controller,
            self.collectors,
            details.predictions,
            history,
        )

    # ------------------------------------------------------------------ life cycle

    @property
    def connection(self) -> Connection:
        """What a viewer needs to attach."""
        return self.server.connection

    @property
    def connection_file(self) -> Path:
        """Path of the connection file."""
        return self.server.connection_file

    def close(
        self, state: TrainingState = "finished", detail: str = "", *, keep_edits: bool = False
    ) -> None:
        """Publish the final state; release the model, the ports and the connection file.

        Args:
            state: the final state.
            detail: why the run has ended.
            keep_edits: leave the editor as it is: frozen filters stay frozen.
        """
        try:
            self._queue.receive(lambda _: None)
            self._queue.refuse_all("the training has ended", self._status.version)
            self._finish(self.recorder.flush())
        finally:
            self._release(state, detail, keep_edits)

    def _release(self, state: TrainingState, detail: str, keep_edits: bool) -> None:
        try:
            if self._status.state not in ("finished", "failed"):
                self._status.send_heartbeat(state, detail)
        finally:
            self.recorder.detach()
            if not keep_edits:
                self._editor.close()
            self.server.close()

    # ------------------------------------------------------------------ a batch

    def begin_batch(self, batch: TrainingBatch) -> None:
        """Handle requests, wait while the run is paused, then start recording the batch."""
        self._batch = batch
        self._status.step = batch.step
        is_first = batch.progress.batch_index == 0
        if batch.can_edit and self._controller.overrides.check(batch.step, first_of_epoch=is_first):
            self._status.send_heartbeat(self._status.state)

        is_paused = False

        def can_plan() -> bool:
            return is_paused or self._handler.can_plan()

        def can_handle(request: Request) -> bool:
            if isinstance(request.body, Command):
                return True
            # A run that is paused trains no batch that would show how it uses the network.
            is_known = batch.is_probe_ready() or is_paused
            return is_known and (batch.can_edit or request.dry_run)

        while True:
            self.receive_requests()
            is_due = time.monotonic() >= self._next_layer_check
            if is_first or is_due or self._queue.has_work(can_plan()):
                self._adopt_replaced_layers()
            self._queue.handle(
                lambda request: self._handler.handle(request, batch), can_handle, can_plan
            )
            if self._had_viewer and batch.is_probe_ready():
                self._status.update_topology(batch.make_probe)
            if not self._controller.must_wait(batch.progress.epoch):
                break
            is_paused = True
            self._publish_collected(is_paused=True)
            self._status.send_heartbeat_if_due("paused")
            time.sleep(PAUSE_POLL_SECONDS)
        self._begin_recording(batch)

    def _begin_recording(self, batch: TrainingBatch) -> None:
        """Start to record the batch if a viewer or the history needs it."""
        was_recording = self.is_recording
        self._is_sample = self._history is not None and self._history.is_due(batch.step)
        self.is_recording = self._needs_recording() or self._is_sample
        if self._is_sample and self._history is not None:
            self._history.begin_sample(batch.step, self.recorder.overhead)
        if self.is_recording:
            self.recorder.begin_batch(loss_scale=batch.loss_scale)
        elif was_recording:
            self.recorder.release_tensors()

    def end_batch(
        self,
        *,
        loss: Tensor | float | None,
        learning_rates: list[float],
        get_metrics: Callable[[], Mapping[str, Tensor | float]] = dict,
        loss_factor: float = 1.0,
    ) -> None:
        """Publish the batch if it was recorded.

        Args:
            loss: the loss of the batch as it was backpropagated, without mixed precision's scale.
            learning_rates: per parameter group of all optimizers.
            get_metrics: returns the scalars that the module has logged; called only when needed.
            loss_factor: the factor of the loss, and thus of all gradients, that is divided out:
                1 / accumulated batches.
        """
        batches_per_second = self._rate.update()
        self._read_metrics(get_metrics)
        if self.is_recording:
            loss = loss if is_scalar(loss) else None
            on_gpu = loss if is_on_gpu(loss) else None
            known = None if loss is None or on_gpu is not None else to_float(loss)
            self._publish_batch(
                BatchMetadata(
                    progress=self._batch.progress,
                    batches_per_second=batches_per_second,
                    loss=known,
                    loss_factor=loss_factor,
                    learning_rates=learning_rates,
                    metrics=self._metrics.newest,
                    is_sample=self._is_sample,
                ),
                on_gpu,
            )
        elif self.recorder.has_pending:
            self._finish(self.recorder.completed())
        self._batch = self._batch.without_data()
        self._status.send_heartbeat_if_due("training", self._controller.describe_pause())

    def _read_metrics(self, get_metrics: Callable[[], Mapping[str, Tensor | float]]) -> None:
        """Read the metrics if somebody is interested, and at the beginning of an epoch."""
        progress = self._batch.progress
        is_regular = progress.step % METRICS_INTERVAL == 0 and self.is_recording
        is_new_epoch = progress.batch_index == 0 and self._history is not None
        is_early = progress.step - self._last_reading < METRICS_INTERVAL
        if is_regular or self._is_sample or (is_new_epoch and not is_early):
            self._last_reading = progress.step
            arrived = self._metrics.read(progress.step, get_metrics())
        else:
            arrived = self._metrics.arrived()
        if self._history is not None:
            for step, metrics in arrived:
                self._history.add_metrics(step, metrics)

    def _adopt_replaced_layers(self) -> None:
        """Adopt layers that the user's code has replaced, added or removed since the last check."""
        self._next_layer_check = time.monotonic() + LAYER_CHECK_SECONDS
        if self.recorder.is_current:
            return
        self._finish(self.recorder.flush())
        self._editor.adopt_replaced_layers()
        self.recorder.update_structure()
        for collector in self.collectors.values():
            collector.reset()
        if self._status.structure is not None:
            self._status.publish_edit()
            if self._history is not None:
                self._history.add_edit(self._batch.step, REPLACED, self._status.version)
        log.info("The model's code has replaced layers; the statistics of the new ones follow")

    def handle_during_validation(self) -> None:
        """Handle requests that need no training batch: a validation epoch may take long."""
        self.receive_requests()
        self._queue.handle(
            lambda request: self._handler.handle(request, self._batch),
            self._handler.needs_no_batch,
            self._handler.can_plan,
        )
        self._status.send_heartbeat_if_due("validating")

    @property
    def needs_probe(self) -> bool:
        """Whether a viewer or a pending edit needs to know how training uses the network."""
        return self._had_viewer or not self._queue.is_empty

    def _needs_recording(self) -> bool:
        """Return whether to record the next batch: somebody must be interested in it.

        The first batch is always recorded, because it shows the order of the layers. What a
        detached viewer has selected is still recorded until that selection expires.
        """
        return (
            self._status.structure is None
            or self.server.publisher.has_subscribers()
            or bool(self.recorder.details.layers or self.recorder.responses.filters)
        )

    # ------------------------------------------------------------------ requests

    def receive_requests(self) -> None:
        """Queue the requests that have arrived; send the state to viewers that attach."""
        self._queue.receive(self._send_state)

    def submit(self, body: RequestBody, *, dry_run: bool = False) -> PendingRequest:
        """Queue a request from inside the process, from any thread."""
        return self._queue.submit(body, dry_run=dry_run)

    def _send_state(self, client: bytes) -> None:
        self._had_viewer = True
        for message in self._status.initial_messages():
            self.server.request_server.reply(client, message)

    # ------------------------------------------------------------------ publishing

    def _publish(self, message: Message) -> None:
        self.server.publisher.publish(message)
        if self._history is not None and isinstance(message, Structure):
            self._history.update_structure(message)

    def _publish_batch(self, metadata: BatchMetadata, loss: Tensor | None) -> None:
        recording = self.recorder.end_batch(
            grad_scale=metadata.loss_factor, loss=loss, metadata=metadata
        )
        if self._status.update_layer_order():
            for collector in self.collectors.values():
                collector.reset()
        metadata.version = self._status.version
        if recording is not None:
            self._finish([recording])
        self._publish_collected()

    def _finish(self, recordings: Sequence[Recording]) -> None:
        """Publish recordings that have arrived on the host, and keep samples in the history."""
        for recording in recordings:
            snapshot = build_snapshot(self.run, recording)
            self._publish(snapshot)
            if self._history is not None and recording.metadata.is_sample:
                self._history.add(snapshot)

    def _publish_collected(self, *, is_paused: bool = False) -> None:
        context = BatchContext(self.run, self._status.version, self._batch, is_paused)
        for collector in self.collectors.values():
            for message in collector.collect(context):
                self._publish(message)
