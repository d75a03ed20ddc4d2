"""A trial of edits: it records the next steps, trains both networks on them, and waits."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from msgspec.structs import replace
from torch import nn

from revacnn_lightning.errors import EditRefusedError, RevacnnError, SteeringError
from revacnn_lightning.protocol.edit_requests import AddFilters, SetHyperparameter
from revacnn_lightning.protocol.trial_requests import TryEdits
from revacnn_lightning.protocol.trial_state import TrialCost, TrialState
from revacnn_lightning.runtime.batch import TrainingBatch
from revacnn_lightning.runtime.step_recording import AddResult
from revacnn_lightning.runtime.trial.compared_networks import ComparedNetworks
from revacnn_lightning.runtime.trial.paired_change import paired_change
from revacnn_lightning.runtime.trial.training_values import TrainedTensors, TrainingValues
from revacnn_lightning.runtime.trial.trial_loop import NO_LOOP, RepeatableLoop, optimizer_refusal
from revacnn_lightning.runtime.trial.trial_steps import TrialStep, recording_trial_step
from revacnn_lightning.steering import Editor
from revacnn_lightning.telemetry import Recorder

__all__ = ["UNDER_WAY", "EditTrial"]

log = logging.getLogger(__name__)

UNDER_WAY = "a trial of edits is under way; keep or discard it first"
NONE = "no trial waits for a decision"
CHANGED = "the network was changed during the trial"
INTERRUPTED = "the process has received a signal, which was handled after the trial"
NOT_NOW = (
    "the network holds the values of a trial of edits at this moment; save the checkpoint from the "
    "thread that trains"
)
DIRECTED = "a trial cannot give new filters a direction; add them without"
COPIES = 3  # of all values: at the start, at the end, and of the edited network


class _EndedError(RevacnnError):
    """The trial was discarded while its networks trained; the message says why, or nothing."""


class EditTrial:
    """Starts, keeps and discards trials of edits: at most one at a time.

    Args:
        model: the network.
        editor: edits it.
        recorder: records its statistics.
        loop: trains the network; None if its steps cannot be repeated.
        on_change: is called when `state` has changed.
        get_batches_per_second: returns how many batches are trained per second; 0 if
            that is unknown.
        must_end: is called after each step of a trial; returns whether to discard it.
        clock: returns seconds.

    Attributes:
        state: the state of the trial that was started last; None before the first.
    """

    def __init__(
        self,
        model: nn.Module,
        editor: Editor,
        recorder: Recorder,
        loop: RepeatableLoop | None,
        on_change: Callable[[], None],
        get_batches_per_second: Callable[[], float] = lambda: 0.0,
        must_end: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._model = model
        self._editor = editor
        self._recorder = recorder
        self._loop = loop
        self._on_change = on_change
        self._get_batches_per_second = get_batches_per_second
        self._must_end = must_end
        self._clock = clock
        self.state: TrialState | None = None
        self._networks: ComparedNetworks | None = None
        self._steps: list[TrialStep] = []
        self._failure = ""
        self._version = -1

    @property
    def is_recording(self) -> bool:
        """Whether the training has to train batches for the trial."""
        return self.state is not None and self.state.stage == "recording"

    @property
    def is_undecided(self) -> bool:
        """Whether the training has to wait for a decision."""
        return self.state is not None and self.state.stage == "undecided"

    @property
    def is_active(self) -> bool:
        """Whether a trial is under way."""
        return self._networks is not None

    @property
    def version(self) -> int:
        """The version of the network."""
        return self._editor.version

    def check_can_save(self) -> None:
        """Check that the network holds the values of the training, which a checkpoint must have.

        Raises:
            SteeringError: the network may hold the values of a compared network.
        """
        if self._networks is not None and self._networks.is_apart:
            raise SteeringError(NOT_NOW)

    # ------------------------------------------------------------------ requests

    def estimate_cost(self, command: TryEdits, batch: TrainingBatch) -> TrialCost:
        """Return what a trial would cost.

        Raises:
            EditRefusedError: this training allows none.
        """
        self._check_possible(command)
        (optimizer,) = self._editor.all_optimizers
        values = TrainingValues.count_bytes(TrainedTensors(self._model, optimizer, ()))
        rate = self._get_batches_per_second()
        seconds = 2 * command.batches / rate if rate > 0 else None
        return TrialCost(
            command.batches, COPIES * values + command.batches * batch.get_nbytes(), seconds
        )

    def start(self, command: TryEdits, request_id: str, batch: TrainingBatch) -> str:
        """Start a trial before ``batch``; return what happens, in words.

        Raises:
            SteeringError: this training allows none, or an edit is refused. Nothing has changed.
        """
        self._check_possible(command)
        assert self._loop is not None
        networks = ComparedNetworks(
            self._model, self._editor, self._recorder, self._loop, command.edits, self._count_step
        )
        networks.apply_and_revert_edits(batch.make_probe())
        self._networks, self._steps, self._failure = networks, [], ""
        self._version = self._editor.version
        self.state = TrialState(
            "recording",
            request_id,
            networks.titles,
            batch.step,
            command.batches,
            bytes=networks.nbytes,
        )
        self._on_change()
        return f"started on the next {command.batches} batches"

    def _check_possible(self, command: TryEdits) -> None:
        """Check that a trial of these edits can be started now.

        Raises:
            EditRefusedError: it cannot.
        """
        if self.is_active:
            raise EditRefusedError(UNDER_WAY)
        if self._loop is None:
            raise EditRefusedError(NO_LOOP)
        if any(isinstance(edit, AddFilters) and edit.directed for edit in command.edits):
            raise EditRefusedError(DIRECTED)
        reason = self._loop.refusal()
        if not reason:
            self._editor.close()  # its own hooks are no reason
            try:
                reason = optimizer_refusal(self._model, self._editor)
            finally:
                self._editor.refresh_hooks()
        if reason:
            raise EditRefusedError(f"a trial repeats the steps of the training, but {reason}")

    def keep(
        self, batch: TrainingBatch, set_value: Callable[[SetHyperparameter], object]
    ) -> list[str]:
        """Continue with the edited network; return the titles of the edits.

        Args:
            batch: the next one.
            set_value: sets a rate of the training.

        Raises:
            SteeringError: no trial waits for that, or an edit fails.
        """
        if self._networks is None or not self.is_undecided:
            raise EditRefusedError(NONE)
        self._networks.keep(batch.make_probe(), set_value)
        return self._end("kept").titles

    def discard(self, note: str = "") -> str:
        """End the trial, and continue with the unedited network; return that in words.

        Raises:
            EditRefusedError: no trial is under way.
        """
        if not self.is_active:
            raise EditRefusedError(NONE)
        self._end("discarded", note)
        return "Discarded; the training goes on as if there had been no trial"

    # ------------------------------------------------------------------ batches

    def recording(self) -> AbstractContextManager[AddResult] | None:
        """Return what records the next training step; None if the trial does not need it."""
        if not self.is_recording or self._networks is None or self._failure:
            return None
        return recording_trial_step(self._model, self._networks.optimizer, self._add)

    def _add(self, step: TrialStep | str) -> None:
        if isinstance(step, str):
            self._failure = self._failure or step
        else:
            self._steps.append(step)

    def advance(self, batch: TrainingBatch) -> None:
        """Do what is due before a batch: train both networks once all steps are recorded."""
        if not self.is_recording or self.state is None:
            return
        is_same = self._editor.version == self._version and self._recorder.is_current
        failure = self._failure or ("" if is_same else CHANGED)
        if failure:
            self._end("failed", f"the training step cannot be repeated: {failure}")
            return
        self.state = replace(self.state, done=len(self._steps))
        if len(self._steps) == self.state.batches:
            self._train(batch)

    def _train(self, batch: TrainingBatch) -> None:
        """Train the compared networks. Whatever happens, the training goes on as it was."""
        assert self._networks is not None
        start = self._clock()
        self._change(stage="training", done=0)
        try:
            losses, edited = self._networks.train(self._steps, batch.make_probe())
        except _EndedError as error:
            self._end("discarded", str(error))
        except RevacnnError as error:
            self._end("failed", str(error))
        except Exception as error:  # of the user's network, such as out of memory
            log.warning("The trial of edits has failed; training continues", exc_info=True)
            self._end("failed", f"{type(error).__name__}: {error}")
        else:
            found = paired_change(losses, edited)
            self._steps = []
            self._change(
                stage="undecided",
                losses=losses,
                edited_losses=edited,
                change=found.mean,
                low=found.low,
                high=found.high,
                seconds=self._clock() - start,
                bytes=self._networks.nbytes,
            )

    def _count_step(self) -> None:
        assert self.state is not None
        self.state = replace(self.state, done=self.state.done + 1)
        if self._networks is not None and self._networks.is_interrupted:
            raise _EndedError(INTERRUPTED)
        if self._must_end():
            raise _EndedError

    def close(self) -> None:
        """End a trial that is under way, because the training ends."""
        if self.is_active:
            self._end("failed", "the training has ended")

    def _end(self, stage: str, note: str = "") -> TrialState:
        self._networks, self._steps = None, []
        return self._change(stage=stage, note=note)

    def _change(self, **changes: object) -> TrialState:
        assert self.state is not None
        self.state = replace(self.state, **changes)
        self._on_change()
        return self.state
