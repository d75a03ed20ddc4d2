"""Handles the requests of a trial of edits, and those that must wait for its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.edit_requests import (
    Edit,
    SetGradientClipping,
    SetHyperparameter,
)
from revacnn_lightning.protocol.messages import PlanSummary, Request
from revacnn_lightning.protocol.requests import (
    ControlRun,
    KeepTrial,
    PruneTo,
    SetPolicy,
    TryEdits,
)
from revacnn_lightning.runtime.automatic_steering import AutomaticSteering
from revacnn_lightning.runtime.batch import TrainingBatch
from revacnn_lightning.runtime.status import StructureAndStatusPublisher
from revacnn_lightning.runtime.trial.edit_trial import UNDER_WAY, EditTrial
from revacnn_lightning.runtime.trial.trial_loop import NO_LOOP

__all__ = ["TrialHandler"]

AUTOMATIC = (
    "the run changes its network by itself; pause the pruning and set the policy to 'off' first"
)
RESUMED = "the training was resumed without a decision"
GOING_ON = ("resume", "step", "finish_epoch", "stop")  # actions of `ControlRun`


class TrialHandler:
    """Executes `TryEdits`, `KeepTrial` and `DiscardTrial`.

    Args:
        trial: the trial of edits of the run; None if the run allows none.
        status: publishes the state of the trial.
        automatic: what the run does by itself; None if it does nothing.
    """

    def __init__(
        self,
        trial: EditTrial | None,
        status: StructureAndStatusPublisher,
        automatic: AutomaticSteering | None,
    ) -> None:
        self._trial = trial
        self._status = status
        self._automatic = automatic

    def check_admitted(self, request: Request) -> None:
        """Check that a request changes nothing that a trial under way depends on.

        Resuming the training, or ending it, discards a trial that waits for a decision.

        Raises:
            EditRefusedError: the request would change something of the kind.
        """
        trial, body = self._trial, request.body
        if trial is None or not trial.is_active:
            return
        is_edit = isinstance(body, Edit | SetGradientClipping) and not request.dry_run
        is_automatic = isinstance(body, PruneTo) or (
            isinstance(body, SetPolicy) and body.policy != "off"
        )
        if is_edit or is_automatic or isinstance(body, SetHyperparameter):
            raise EditRefusedError(UNDER_WAY)
        if trial.is_undecided and isinstance(body, ControlRun) and body.action in GOING_ON:
            trial.discard(RESUMED)

    def plan(self, body: TryEdits, batch: TrainingBatch) -> PlanSummary:
        """Return what a trial will cost.

        Raises:
            EditRefusedError: there can be none.
        """
        cost = self._admitted(batch).estimate_cost(body, batch)
        return PlanSummary(f"Try it on the next {body.batches} batches", trial=cost)

    def execute(
        self,
        request: Request,
        batch: TrainingBatch,
        set_value: Callable[[SetHyperparameter], object],
        publish_edit: Callable[[Sequence[str]], object],
    ) -> str:
        """Execute a command before a batch; return what was done, in words.

        Args:
            request: the request that holds the command.
            batch: the next batch.
            set_value: sets a rate of the training.
            publish_edit: publishes an edited network; receives the titles of the edits.

        Raises:
            SteeringError: the command is refused, or failed and changed nothing.
        """
        body = request.body
        if isinstance(body, TryEdits):
            trial = self._admitted(batch)
            if self._automatic is not None and self._automatic.is_active:
                raise EditRefusedError(AUTOMATIC)
            return trial.start(body, request.id, batch)
        if self._trial is None:
            raise EditRefusedError(NO_LOOP)
        if not isinstance(body, KeepTrial):
            return self._trial.discard()
        version = self._trial.version
        titles = self._trial.keep(batch, set_value)
        if self._trial.version != version:
            publish_edit(titles)
        self._status.repeat_heartbeat()
        return f"Kept: {'; '.join(titles)}"

    def _admitted(self, batch: TrainingBatch) -> EditTrial:
        """Return the trial, if there can be one.

        Raises:
            EditRefusedError: there can be none.
        """
        if self._trial is None:
            raise EditRefusedError(NO_LOOP)
        if batch.edit_refusal:
            raise EditRefusedError(batch.edit_refusal)
        return self._trial
