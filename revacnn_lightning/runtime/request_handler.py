"""Handle requests: plan and apply edits, execute commands."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from revacnn_lightning.errors import EditRefusedError, RevacnnError, StaleStructureError
from revacnn_lightning.history.history_recorder import HistoryRecorder
from revacnn_lightning.protocol.automatic_requests import AutomaticCommand
from revacnn_lightning.protocol.messages import (
    Applied,
    Done,
    History,
    Planned,
    PlanSummary,
    Refused,
    Reply,
    Request,
)
from revacnn_lightning.protocol.rate_limit import RateLimitedLog, TokenBucket
from revacnn_lightning.protocol.requests import (
    Command,
    ControlRun,
    Edit,
    InspectFilter,
    KeyCommand,
    SendHistory,
    SetGradientClipping,
    SettingCommand,
    StartRecording,
    StopRecording,
    TrialCommand,
    TryEdits,
    Viewing,
)
from revacnn_lightning.recording.run_recordings import RunRecordings
from revacnn_lightning.runtime.automatic_steering import AutomaticSteering
from revacnn_lightning.runtime.batch import TrainingBatch
from revacnn_lightning.runtime.collector import Collector
from revacnn_lightning.runtime.controls import RunController
from revacnn_lightning.runtime.directed_initializer import DirectedInitializer
from revacnn_lightning.runtime.image_predictions import PredictionsBeforeAndAfterEdit
from revacnn_lightning.runtime.plan_budget import PlanTimeBudget
from revacnn_lightning.runtime.removal_prices import LossChangeMeasurer, has_measurable_loss_change
from revacnn_lightning.runtime.status import StructureAndStatusPublisher
from revacnn_lightning.runtime.trial.edit_trial import EditTrial
from revacnn_lightning.runtime.trial.trial_handler import TrialHandler
from revacnn_lightning.steering import Editor, EditPlan
from revacnn_lightning.telemetry import Recorder

__all__ = ["RequestHandler"]

log = logging.getLogger(__name__)

# A history takes a few milliseconds; a viewer requests it once.
HISTORIES_PER_SECOND = 0.5
HISTORIES_IN_A_ROW = 16
HISTORY_REQUESTS = 256  # of those that the journal keeps
# An edit has the price of its plan, if that is no older: measuring it again delays the edit.
PRICE_BATCHES = 100
PRICED_PLANS = 16


class RequestHandler:
    """Handles the requests of one run. An exception fails the request, never the run.

    Args:
        editor: edits the network.
        recorder: is updated after edits.
        status: publishes the new structure and parameter groups.
        controller: executes the commands that concern the run.
        collectors: per type of inspection request, what collects the messages it selects.
        predictions: compares the prediction for the chosen image before and after an edit.
        history: the history of the run; None if none is kept.
        recordings: the recordings of the run; None if it cannot be recorded.
        prices: measures the prices of removals; None if this is not possible.
        automatic: what the run does by itself; None if it does nothing.
        directed_initializer: gives new filters a direction; None if this is not possible.
        trial: the trial of edits of the run; None if the run allows none.
    """

    def __init__(
        self,
        editor: Editor,
        recorder: Recorder,
        status: StructureAndStatusPublisher,
        controller: RunController,
        collectors: Mapping[type, Collector],
        predictions: PredictionsBeforeAndAfterEdit | None = None,
        history: HistoryRecorder | None = None,
        recordings: RunRecordings | None = None,
        prices: LossChangeMeasurer | None = None,
        automatic: AutomaticSteering | None = None,
        directed_initializer: DirectedInitializer | None = None,
        trial: EditTrial | None = None,
    ) -> None:
        self._editor = editor
        self._recorder = recorder
        self._status = status
        self._controller = controller
        self._collectors = collectors
        self._predictions = predictions
        self._history = history
        self._recordings = recordings
        self._prices = prices
        self._automatic = automatic
        self._initializer = directed_initializer
        self._trials = TrialHandler(trial, status, automatic)
        # Requests of the newest plans, with structure version, batch and summary
        self._priced_plans: deque[tuple[Edit, int, int, PlanSummary]] = deque(maxlen=PRICED_PLANS)
        self._history_budget = TokenBucket(HISTORIES_PER_SECOND, HISTORIES_IN_A_ROW)
        self._plan_budget = PlanTimeBudget()
        self._log = RateLimitedLog(log)

    def handle(self, request: Request, batch: TrainingBatch) -> Reply:
        """Plan or carry out one request before ``batch``, and return the reply."""
        body = request.body
        try:
            if isinstance(body, InspectFilter):
                self._check_version(request.version)
            self._trials.check_admitted(request)
            if isinstance(body, TryEdits):
                self._check_version(request.version)
                if request.dry_run:
                    with self._plan_budget.count_time_inside():
                        return Planned(request.id, self._trials.plan(body, batch))
            if isinstance(body, SetGradientClipping) and request.dry_run:
                return Planned(request.id, self._controller.plan(body))
            if isinstance(body, Command):
                _check_no_dry_run(request)
                if isinstance(body, SendHistory):
                    return self._send_history(request.id)
                before = self._status.version
                detail = self._execute(request, body, batch)
                after = self._status.version  # another one if the edits of a trial are kept
                return Done(request.id, detail, batch.step, -1 if after == before else after)
            if isinstance(body, KeyCommand):
                raise EditRefusedError("the owner of the run hands out keys with revacnn share")
            if refusal := batch.why_edit_refused(body):
                raise EditRefusedError(refusal)
            self._check_version(request.version)
            if request.dry_run:
                return Planned(request.id, self._plan(body, batch))
            return self._apply(request.id, body, batch)
        except RevacnnError as error:
            return Refused(request.id, str(error), self._status.version)
        except Exception as error:  # noqa: BLE001 - a bug here must not stop the training
            kind = type(body).__name__
            message = "%s failed and was not carried out"
            self._log.warning(kind.encode(), message, body, exc_info=True)
            reason = f"internal error ({type(error).__name__}: {error}); see the log of the run"
            return Refused(request.id, reason, self._status.version)

    def can_plan(self) -> bool:
        """Return whether the training can afford another plan of a viewer; see `PlanTimeBudget`."""
        return not self._plan_budget.is_exhausted

    def needs_no_batch(self, request: Request) -> bool:
        """Return whether a request can be handled in the middle of a validation epoch.

        These are most commands, and plans for a network that has been traced. A checkpoint waits:
        it should not be saved in the middle of a validation epoch.
        """
        body = request.body
        if isinstance(body, ControlRun):
            return body.action not in ("checkpoint", "stop")
        if isinstance(body, TrialCommand):
            return False
        return isinstance(body, Command) or (request.dry_run and self._editor.is_traced)

    def _plan(self, edit: Edit, batch: TrainingBatch) -> PlanSummary:
        if not self._editor.is_traced:  # the first plan of a structure traces the network
            return self._priced(self._editor.plan(edit, batch.make_probe()), batch)
        with self._plan_budget.count_time_inside():
            return self._priced(self._editor.plan(edit, batch.make_probe()), batch)

    def _priced(self, plan: EditPlan, batch: TrainingBatch) -> PlanSummary:
        """Return the summary of a plan with its price, if it can have one."""
        if self._initializer is not None:
            self._initializer.new_filter_directions(plan.request, plan)
        summary = plan.summary()
        if self._prices is None or not has_measurable_loss_change(plan.request):
            return summary
        price = self._prices.measure(plan, (batch.step, self._status.version))
        if isinstance(price, str):
            return replace(summary, price_note=price)
        summary = replace(summary, price=price)
        self._priced_plans.append((plan.request, self._status.version, batch.step, summary))
        return summary

    def _apply(self, request_id: str, edit: Edit, batch: TrainingBatch) -> Applied:
        predictions, step = self._predictions, batch.step
        before = None if predictions is None else predictions.predict(step, self._status.version)
        planned = self._price_before(edit, batch)
        directions = (
            None if self._initializer is None else self._initializer.new_filter_directions(edit)
        )
        with self._recorder.hooks_suspended():
            outcome = self._editor.apply(edit, batch.make_probe())
        if self._initializer is not None and directions is not None:
            self._initializer.initialize_new_filters(outcome.plan, directions)
        summary = replace(
            outcome.plan.summary(), price=planned.price, price_note=planned.price_note
        )
        self._publish_edit([summary.title], batch)
        if predictions is not None:
            predictions.record_change_by_edit(before, step, self._status.version)
        return Applied(
            id=request_id,
            step=batch.step,
            version=self._status.version,
            plan=summary,
            output_change=outcome.output_change,
            seconds=outcome.seconds,
        )

    def _publish_edit(self, titles: Sequence[str], batch: TrainingBatch) -> None:
        """Publish the network after edits."""
        self._recorder.update_structure()
        for collector in self._collectors.values():
            collector.reset()
        self._status.publish_edit()
        if self._history is not None:
            for title in titles:
                self._history.add_edit(batch.step, title, self._status.version)

    def _price_before(self, edit: Edit, batch: TrainingBatch) -> PlanSummary:
        """Return a plan with the price of an edit that is about to be applied, or without any."""
        if self._prices is None or not has_measurable_loss_change(edit):
            return PlanSummary("")
        for known, version, step, summary in reversed(self._priced_plans):
            is_recent = version == self._status.version and batch.step - step <= PRICE_BATCHES
            if is_recent and known == edit:
                return summary
        return self._priced(self._editor.plan(edit, batch.make_probe()), batch)

    def _send_history(self, request_id: str) -> History:
        if self._history is None:
            raise EditRefusedError(
                "this run keeps no history; the option keep_history=True keeps one"
            )
        if not self._history_budget.try_take():
            raise EditRefusedError("the history is requested too often; request it again later")
        history = self._history.to_message(request_id)
        return replace(history, requests=self._editor.journal.requests[-HISTORY_REQUESTS:])

    def _execute(self, request: Request, command: Command, batch: TrainingBatch) -> str:
        """Execute a command; return what was done, in words."""
        if isinstance(command, Viewing):
            self._collectors[type(command)].select(command)
            return ""
        if isinstance(command, StartRecording | StopRecording):
            return self._record(command)
        if isinstance(command, AutomaticCommand):
            if self._automatic is None:
                raise EditRefusedError("this training changes nothing by itself")
            return self._automatic.execute(command, batch)
        if isinstance(command, TrialCommand):
            return self._trials.execute(
                request,
                batch,
                lambda one: self._controller.execute(one, batch.progress),
                lambda titles: self._publish_edit(titles, batch),
            )
        assert isinstance(command, ControlRun | SettingCommand)  # a history is a message
        result = self._controller.execute(command, batch.progress)
        if isinstance(command, SettingCommand):
            self._status.repeat_heartbeat()
        return result

    def _record(self, command: StartRecording | StopRecording) -> str:
        if self._recordings is None:
            raise EditRefusedError("this training cannot be recorded")
        if isinstance(command, StopRecording):
            return self._recordings.stop()
        return self._recordings.start(command.file)

    def _check_version(self, version: int | None) -> None:
        current = self._status.version
        if version is not None and version != current:
            raise StaleStructureError(
                f"the network has changed: the request is for structure {version}, the current one "
                f"is {current}; check the indices and repeat the request"
            )


def _check_no_dry_run(request: Request) -> None:
    """Check that a command is not a dry run, which must change nothing.

    Raises:
        EditRefusedError: it is one.
    """
    if request.dry_run:
        kind = type(request.body).__name__
        raise EditRefusedError(f"{kind} has no plan, so send it without dry_run")
