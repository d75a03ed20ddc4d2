"""One training run: what it publishes, and the requests that it handles.

This module does not know Lightning: the callback drives it from Lightning's hooks, and a training
loop of your own could drive it in the same way. Every training batch is ``begin_batch`` ...
``end_batch``.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from torch import Tensor, nn

from revacnn_lightning.history.history_recorder import HistoryRecorder
from revacnn_lightning.protocol.access_keys import AUTOMATIC
from revacnn_lightning.protocol.access_messages import Access
from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.encoding import encode
from revacnn_lightning.protocol.lineage import Lineage
from revacnn_lightning.protocol.messages import (
    Message,
    Reply,
    Request,
    Structure,
    TrainingState,
)
from revacnn_lightning.protocol.rank_messages import TroubledRank, TroubledRanks
from revacnn_lightning.protocol.requests import (
    Command,
    ControlRun,
    DiscardTrial,
    RequestBody,
    SendHistory,
    SettingCommand,
    TryEdits,
    Viewing,
)
from revacnn_lightning.protocol.senders import RequestSender
from revacnn_lightning.recording.run_recordings import (
    RecordingSettings,
    RunRecordings,
    recording_metadata,
)
from revacnn_lightning.runtime.alert_monitor import AlertMonitor
from revacnn_lightning.runtime.automatic_steering import AutomaticSteering
from revacnn_lightning.runtime.batch import BatchContext, TrainingBatch
from revacnn_lightning.runtime.batch_publisher import BatchPublisher, GetMetrics
from revacnn_lightning.runtime.compilations import CompilationCounter
from revacnn_lightning.runtime.controls import ControllableTraining, RunController
from revacnn_lightning.runtime.directed_initializer import DirectedInitializer
from revacnn_lightning.runtime.inspection_collectors import (
    InspectionCollectors,
    InspectionSources,
)
from revacnn_lightning.runtime.key_commands import AccessKeyCommands
from revacnn_lightning.runtime.loss_replay import NO_LOSS, LossReplay
from revacnn_lightning.runtime.message_observers import MessageObserver, MessageObservers
from revacnn_lightning.runtime.pause import leads_to_pause
from revacnn_lightning.runtime.provably_dead_filters import ProvablyDeadFilters
from revacnn_lightning.runtime.pruning import Pruning
from revacnn_lightning.runtime.rank_comparison import RankValuesCollector
from revacnn_lightning.runtime.rank_merger import make_snapshot_merger
from revacnn_lightning.runtime.ranks.all_ranks import (
    AllRanks,
    SingleRank,
    StopReasons,
    changes_all_ranks,
)
from revacnn_lightning.runtime.removal_prices import has_measurable_loss_change
from revacnn_lightning.runtime.request_handler import RequestHandler
from revacnn_lightning.runtime.request_outcomes import OutcomeRecorder
from revacnn_lightning.runtime.request_queue import PendingRequest, RequestQueue
from revacnn_lightning.runtime.server import Endpoints, RunServer
from revacnn_lightning.runtime.socket_polling import SocketPollingSchedule
from revacnn_lightning.runtime.status import StructureAndStatusPublisher
from revacnn_lightning.runtime.steering_policy import SteeringPolicyExecutor
from revacnn_lightning.runtime.trial.edit_trial import EditTrial
from revacnn_lightning.runtime.trial.trial_loop import RepeatableLoop
from revacnn_lightning.runtime.validation_confusion import ConfusionRecorder
from revacnn_lightning.steering import Editor
from revacnn_lightning.telemetry import Recorder
from revacnn_lightning.telemetry.split_tensors import class_before_fsdp

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
        sources: what inspections read besides the batches; None if nothing.
        history: keeps a sample of the batches; None if no history is kept.
        lineage: the lineage of the run; None if it continues no other run.
        recordings: the recordings of the run; None if it cannot be recorded.
        alerts: observes the run for what goes wrong.
        observers: receive all that is published.
        replay: computes the loss of a recorded step; None if this is not possible.
        snapshot_interval: seconds between two snapshots; 0 if every batch has one.
        ranks: all ranks of the training; None if this process is the only one.
        trial_loop: how the loop trains a step; None if edits cannot be tried.

    Attributes:
        run: id of the run.
        recorder: see above.
        server: the sockets of the run.
        inspections: collects what inspection requests select.
        confusion: observes the scores of validation batches.
    """

    def __init__(
        self,
        model: nn.Module,
        editor: Editor,
        recorder: Recorder,
        controls: ControllableTraining,
        endpoints: Endpoints,
        *,
        sources: InspectionSources | None = None,
        history: HistoryRecorder | None = None,
        lineage: Lineage | None = None,
        recordings: RecordingSettings | None = None,
        alerts: AlertMonitor | None = None,
        observers: Sequence[MessageObserver] = (),
        replay: LossReplay | None = None,
        snapshot_interval: float = 0.0,
        ranks: AllRanks | None = None,
        trial_loop: RepeatableLoop | None = None,
    ) -> None:
        self.run = uuid.uuid4().hex[:12]
        name = class_before_fsdp(type(model)).__name__
        about = recording_metadata(self.run, name, endpoints.name)
        self._recordings = (
            None if recordings is None else RunRecordings(recordings, about, self._current_state)
        )
        own: list[MessageObserver] = [] if self._recordings is None else [self._recordings]
        self._alerts = AlertMonitor() if alerts is None else alerts
        self._compilations = CompilationCounter()
        self._replay = LossReplay(model, refusal=NO_LOSS) if replay is None else replay
        self.recorder = recorder
        self._editor = editor
        self._controls = controls
        self._history = history
        self._ranks: AllRanks = SingleRank() if ranks is None else ranks
        comparison = RankValuesCollector(self._ranks.statistics, recorder)
        self._batches = BatchPublisher(
            self.run, recorder, self._publish, self._update_structure, history,
            make_snapshot_merger(
                self._ranks.statistics, recorder, snapshot_interval, comparison.receive
            ),
        )  # fmt: skip
        self._batch = TrainingBatch()
        self._had_viewer = False
        self._must_train_first = False  # whether a batch comes before the next pause
        self._is_needed = False  # whether a viewer or an observer wants this batch
        self._next_layer_check = 0.0  # monotonic seconds
        self._polling = SocketPollingSchedule()
        self._is_polling = True  # whether the sockets are polled before this batch
        self._controller = RunController(self.run, controls, self._ranks)
        sources = InspectionSources() if sources is None else sources
        self.inspections = inspections = InspectionCollectors(
            model, editor, recorder, lambda: controls.optimizers, sources, self._replay, comparison,
            lambda: self._batch,
        )  # fmt: skip
        self.confusion = ConfusionRecorder(
            model, lambda: inspections.classes.is_active, sources.class_names
        )
        self._automatic, policy = self._make_automatic(recorder, editor)
        self.trial = EditTrial(
            model, editor, recorder, trial_loop, lambda: self._status.repeat_heartbeat(),
            lambda: self._batches.batches_per_second, self._must_end_trial,
        )  # fmt: skip
        self._observers = MessageObservers(
            [*own, self._alerts, inspections.filter_prices, policy, *observers]
        )
        self.server = RunServer(self.run, name, endpoints, lineage)
        self._status = self._make_status(model)
        self._key_commands = AccessKeyCommands(self.server.keys, self.server.publisher)
        outcomes = OutcomeRecorder(
            self.run, lambda: editor.journal, self._publish, lambda: self._status.step
        )
        self._queue = RequestQueue(self.server.request_server, self._key_commands, outcomes.record)
        self._handler = self._make_handler()
        if self._recordings is not None:
            self._recordings.start_configured()
            self._recordings.on_change = self._status.repeat_heartbeat

    def _make_automatic(
        self, recorder: Recorder, editor: Editor
    ) -> tuple[AutomaticSteering, SteeringPolicyExecutor]:
        """Return what the run changes by itself, and the policy that it observes."""
        inspections, controls = self.inspections, self._controls
        certificates = ProvablyDeadFilters(recorder, editor, lambda: controls.optimizers)
        policy = SteeringPolicyExecutor(
            inspections.evidence,
            certificates,
            self._alerts.network.dead_mask,
            self._submit_for_present,
        )
        pruning = Pruning(
            recorder,
            editor,
            inspections.filter_prices,
            inspections.prices,
            self._replay,
            self._submit_for_present,
        )
        steering = AutomaticSteering(pruning, policy, lambda: self._status.repeat_heartbeat())
        return steering, policy

    def _make_status(self, model: nn.Module) -> StructureAndStatusPublisher:
        return StructureAndStatusPublisher(
            self.run,
            model,
            self._editor,
            self.recorder,
            get_optimizers=lambda: self._controls.optimizers,
            get_group_notes=lambda: self._controller.overrides.notes,
            get_recording=lambda: "" if self._recordings is None else self._recordings.file_name,
            get_alerts=lambda: self._alerts.shown,
            get_compilations=lambda: (self._compilations.count, self._compilations.seconds),
            get_automatic=lambda: self._automatic.state,
            get_trial=lambda: self.trial.state,
            get_clipping=lambda: self._controls.clipping.describe(),
            publish=self._publish,
        )

    def _make_handler(self) -> RequestHandler:
        inspections = self.inspections
        return RequestHandler(
            self._editor,
            self.recorder,
            self._status,
            self._controller,
            inspections.by_request,
            inspections.details.predictions,
            self._history,
            self._recordings,
            inspections.prices,
            self._automatic,
            DirectedInitializer(self._editor, inspections.growth),
            self.trial,
        )

    @property
    def is_recording(self) -> bool:
        """Whether the current batch is recorded."""
        return self._batches.is_recording

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
            self.trial.close()
            self._queue.receive(lambda _: None)
            self._queue.refuse_all("the training has ended", self._status.version)
            self._batches.flush()
        finally:
            self._release(state, detail, keep_edits)

    def _release(self, state: TrainingState, detail: str, keep_edits: bool) -> None:
        with ExitStack() as stack:  # an error of one part does not keep the others
            stack.callback(self.server.close)
            if not keep_edits:
                stack.callback(self._editor.close)
            stack.callback(self.recorder.detach)
            stack.callback(self.confusion.close)
            stack.callback(self._compilations.close)
            stack.callback(self._observers.close, state, detail)  # after the last message
            if self._status.state not in ("finished", "failed"):
                self._status.send_heartbeat(state, detail)

    # ------------------------------------------------------------------ a batch

    def begin_batch(self, batch: TrainingBatch) -> None:
        """Handle requests, wait while the run is paused, then start recording the batch."""
        self._batch = batch
        self._status.step = batch.step
        if self.server.publisher.had_subscribers_when_checked:
            self._polling.poll_often_for_client()
        self._is_polling = self._polling.is_due()
        is_first = batch.progress.batch_index == 0
        if batch.can_edit and self._controller.detect_overrides(
            batch.step, first_of_epoch=is_first
        ):
            self._status.repeat_heartbeat()
        self._handle_requests(batch, is_first=is_first)
        if self.trial.is_recording:
            self._batches.publish_pending()
            self.trial.advance(batch)
        while self._ranks.is_stopped and self._must_wait(batch):
            self._batches.publish_pending()
            self._publish_collected(is_paused=True)
            self._status.send_heartbeat_if_due("paused")
            self._ranks.wait()
            time.sleep(PAUSE_POLL_SECONDS)
            self._handle_requests(batch, is_paused=True)
        self._must_train_first = False
        is_needed = self._needs_recording()
        self._is_needed = is_needed and self._status.structure is not None
        self._batches.begin(batch, is_needed=is_needed)
        self._compilations.watch()  # an edit resets the compiler

    def _must_wait(self, batch: TrainingBatch) -> bool:
        """Return whether the next batch must wait: a trial needs its batches, then a decision.

        A pause of the first viewer, requested in a validation, lets one batch pass; see
        `_trains_first`.
        """
        if self.trial.is_active:
            return self.trial.is_undecided
        if self._trains_first(batch):
            return False
        return self._controller.must_wait(batch.progress.epoch)

    def _trains_first(self, batch: TrainingBatch) -> bool:
        """Return whether no pause comes before this batch: it is the first one after a viewer.

        It shows how training uses the network, without which the paused run could not be edited.
        """
        return self._must_train_first and not batch.is_probe_ready()

    def _must_end_trial(self) -> bool:
        """Stay responsive while a trial trains; return whether it is to be discarded."""
        self.receive_requests()
        self._status.send_heartbeat_if_due("paused")
        return self._queue.has_matching(
            lambda one: isinstance(one.body, DiscardTrial) or one.body == ControlRun("stop")
        )

    @property
    def stop_reasons(self) -> StopReasons:
        """Why all processes of the training have to stop before one of the next batches."""

        def is_edit(request: Request) -> bool:
            return not request.dry_run and not isinstance(request.body, Command)

        return StopReasons(
            is_wanted=self._queue.has_matching(
                lambda r: changes_all_ranks(r.body, dry_run=r.dry_run)
            ),
            is_edit=self._queue.has_matching(is_edit),
            is_pausing=self._controller.is_pausing,
            statistics=tuple(self.recorder.statistics) if self._is_needed else (),
        )

    def _handle_requests(
        self, batch: TrainingBatch, *, is_first: bool = False, is_paused: bool = False
    ) -> None:
        """Handle the requests that can be handled before this batch.

        Args:
            batch: the next batch.
            is_first: whether it is the first of its epoch.
            is_paused: whether the run is paused: it trains no batch that would show how it uses the
                network, and plans delay nothing.
        """

        def can_plan() -> bool:
            return is_paused or self._handler.can_plan()

        def can_handle(request: Request) -> bool:
            can_change = self._ranks.is_stopped or self._ranks.refusal
            if not can_change and changes_all_ranks(request.body, dry_run=request.dry_run):
                is_refused = bool(batch.why_edit_refused(request.body))
                return is_refused and not isinstance(request.body, Command)
            if isinstance(request.body, Command) and not isinstance(request.body, TryEdits):
                return not (leads_to_pause(request.body) and self._trains_first(batch))
            is_known = batch.is_probe_ready() or is_paused
            if request.dry_run and has_measurable_loss_change(request.body) and not is_paused:
                self._replay.request_recording()
                is_known = is_known and batch.is_loss_ready()
            return is_known and (batch.can_edit or request.dry_run)

        if is_paused or self._is_polling:
            self.receive_requests()
        if not is_paused:
            if self._automatic.needs_statistics(batch.step):
                self._batches.publish_pending()
            self._automatic.advance(batch, self._status.version)
        is_due = is_first or time.monotonic() >= self._next_layer_check
        if is_due or (not self._queue.is_empty and self._queue.has_work(can_plan())):
            self._adopt_replaced_layers()

        def handle() -> bool:
            if self._queue.is_empty:
                return False
            return self._queue.handle(lambda one: self._handle(one, batch), can_handle, can_plan)

        # A person applies an edit while its plan is made. The edit needs not wait for a batch more.
        if handle() and not is_paused:
            self.receive_requests()
            handle()
        if self._needs_trace and batch.is_probe_ready() and self._status.is_topology_outdated:
            self._adopt_replaced_layers()
            self._status.publish_topology_if_outdated(batch.make_probe)

    def _handle(self, request: Request, batch: TrainingBatch) -> Reply:
        """Handle a request; observers receive the reply, unless it only shows something."""
        is_view = isinstance(request.body, Viewing | SendHistory)
        if not is_view and not request.dry_run:
            self._batches.publish_pending()  # with the network as it was
        reply = self._handler.handle(request, batch)
        if not is_view and not request.dry_run:
            self._observers.receive(reply, encode(reply))
        return reply

    def end_batch(
        self,
        *,
        loss: Tensor | float | None,
        get_learning_rates: Callable[[], list[float]],
        get_metrics: GetMetrics = dict,
        loss_factor: float = 1.0,
    ) -> None:
        """Publish the batch if it was recorded.

        Args:
            loss: the loss of the batch as it was backpropagated, without mixed precision's scale.
            get_learning_rates: returns those of the parameter groups of all optimizers; called only
                when needed.
            get_metrics: returns the scalars that the module has logged; called only when needed.
            loss_factor: the factor of the loss, and thus of all gradients, that is divided out:
                1 / accumulated batches.
        """
        self._batches.end(
            self._batch.progress,
            loss=loss,
            get_learning_rates=get_learning_rates,
            get_metrics=get_metrics,
            loss_factor=loss_factor,
        )
        if self.is_recording:
            self._publish_collected()
        given_up, errors = self._compilations.pop_abandoned_functions(), self._ranks.pop_errors()
        for text in given_up:
            self._alerts.raise_alert("not_compiled", self._batch.step, text)
        for text in errors:
            text = f"{text[0].upper()}{text[1:]}. The training continues."
            self._alerts.raise_alert("rank_error", self._batch.step, text)
        if given_up or errors:
            self._status.repeat_heartbeat()
        self._batch = self._batch.without_data()
        self._status.send_heartbeat_if_due("training", self._controller.describe_pause())

    def _adopt_replaced_layers(self) -> None:
        """Adopt layers that the user's code has replaced, added or removed since the last check."""
        self._next_layer_check = time.monotonic() + LAYER_CHECK_SECONDS
        if self.recorder.is_current:
            return
        self._batches.flush()
        self._editor.adopt_replaced_layers()
        self._ranks.note_replaced_layers()
        self.recorder.update_structure()
        self._reset_collectors()
        if self._status.structure is not None:
            self._status.publish_edit()
            if self._history is not None:
                self._history.add_edit(self._batch.step, REPLACED, self._status.version)
        log.info("The model's code has replaced layers; the new ones are recorded from now on")

    def handle_during_validation(self) -> None:
        """Handle requests that need no training batch: a validation epoch may take long."""
        self._batches.publish_pending()
        self.receive_requests()
        self._queue.handle(
            lambda request: self._handle(request, self._batch),
            lambda request: self._handler.needs_no_batch(request) and not self._is_for_all(request),
            self._handler.can_plan,
        )
        self._status.send_heartbeat_if_due("validating")

    def end_validation(self) -> None:
        """Send which classes the network has taken for which, if a viewer shows classes."""
        context = BatchContext(self.run, self._status.version, self._batch)
        confusion = self.confusion.finish(context)
        if confusion is not None:
            self.inspections.classes.add_confusion(confusion)

    def _is_for_all(self, request: Request) -> bool:
        """Return whether other processes, which may be in any batch, must do the same."""
        body, is_plan = request.body, request.dry_run
        is_setting = isinstance(body, SettingCommand) and changes_all_ranks(body, dry_run=is_plan)
        return self._ranks.size > 1 and is_setting

    @property
    def needs_probe(self) -> bool:
        """Whether a viewer or a pending edit needs to know how training uses the network."""
        return self._needs_trace or not self._queue.is_empty

    @property
    def _needs_trace(self) -> bool:
        """Whether it is needed how the layers are connected, though no edit is pending."""
        return self._had_viewer or self._automatic.is_active or self.inspections.growth.is_wanted

    def _needs_recording(self) -> bool:
        """Return whether to record the next batch: somebody must be interested in it.

        The first batch is always recorded, because it shows the order of the layers. What a
        detached viewer has selected is still recorded until that selection expires.
        """
        return (
            self._observers.need_batch(self._batch.step)  # first: all are called for each batch
            or self._status.structure is None
            or self.inspections.growth.is_wanted
            or self._has_subscribers()
            or bool(self.recorder.details.layers or self.recorder.responses.filters)
            or bool(self.recorder.pooled_maps.layers)
        )

    def _has_subscribers(self) -> bool:
        publisher = self.server.publisher
        return (
            publisher.has_subscribers()
            if self._is_polling
            else publisher.had_subscribers_when_checked
        )

    # ------------------------------------------------------------------ requests

    def receive_requests(self) -> None:
        """Queue the requests that have arrived; send the state to viewers that attach."""
        self._key_commands.end_expired_keys()
        self._queue.receive(self._send_state)
        if not self._queue.is_empty:
            self._polling.poll_often_for_client()

    def submit(self, body: RequestBody, *, dry_run: bool = False) -> PendingRequest:
        """Queue a request from inside the process, from any thread."""
        return self._queue.submit(body, dry_run=dry_run)

    def _submit_for_present(self, body: RequestBody) -> PendingRequest:
        return self._queue.submit(body, version=self._status.version, key=AUTOMATIC)

    def _send_state(self, client: RequestSender) -> None:
        if not self._had_viewer:
            self._had_viewer = True
            self._must_train_first = not self._controller.is_pausing
        self._polling.poll_often_for_client()
        access = Access(client.key.name, client.key.role, client.key.expires)
        for message in (access, *self._status.initial_messages()):
            self.server.request_server.reply(client, message)

    # ------------------------------------------------------------------ publishing

    def _current_state(self) -> list[Message]:
        """Return the messages that describe the run so far."""
        history = None if self._history is None else self._history.to_message()
        known: list[Message] = [] if history is None or not history.start else [history]
        return [*self._status.initial_messages(), *known]

    def _publish(self, message: Message) -> None:
        frames = encode(message)
        self.server.publisher.publish_frames(frames)
        self._observers.receive(message, frames)
        if self._history is not None and isinstance(message, Structure):
            self._history.update_structure(message)

    def publish_rank_states(self, size: int, states: list[TroubledRank]) -> None:
        """Publish which of ``size`` ranks are in trouble. Any thread may call it."""
        self.server.publisher.publish(TroubledRanks(self.run, size, states))

    def _update_structure(self) -> int:
        """Publish the structure if the last batch has changed it; return its version."""
        if self._status.publish_order_if_changed():
            self._reset_collectors()
        return self._status.version

    def _reset_collectors(self) -> None:
        for collector in self.inspections.by_request.values():
            collector.reset()

    def _publish_collected(self, *, is_paused: bool = False) -> None:
        context = BatchContext(self.run, self._status.version, self._batch, is_paused)
        for collector in self.inspections.by_request.values():
            for message in collector.collect(context):
                self._publish(message)
