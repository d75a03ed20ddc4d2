"""The monitoring of a training loop that is not a Lightning Trainer: what `LoopRun` drives."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.optim import Optimizer

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.messages import TrainingState
from revacnn_lightning.protocol.requests import RequestBody
from revacnn_lightning.runtime.batch import Progress, TrainingBatch
from revacnn_lightning.runtime.gradient_clipping import ClippingControl, FixedClipping
from revacnn_lightning.runtime.how_to_attach import how_to_attach
from revacnn_lightning.runtime.hyperparameters import learning_rates
from revacnn_lightning.runtime.inspection_collectors import InspectionSources
from revacnn_lightning.runtime.loop_state import LoopState
from revacnn_lightning.runtime.nested import map_leaves
from revacnn_lightning.runtime.ranks.rank_zero import RankZero
from revacnn_lightning.runtime.ranks.training_refusals import SPLIT
from revacnn_lightning.runtime.request_queue import PendingRequest
from revacnn_lightning.runtime.run_continuation import RunContinuation
from revacnn_lightning.runtime.run_diagnostics import AlertAndSummaryObservers
from revacnn_lightning.runtime.run_options import RunOptions
from revacnn_lightning.runtime.session import Session
from revacnn_lightning.runtime.step_recording import AddResult
from revacnn_lightning.runtime.training_step_observer import TrainingStepObserver
from revacnn_lightning.runtime.undo_after_failure import UndoOnlySession
from revacnn_lightning.runtime.validation_data import ValidationData, find_class_names
from revacnn_lightning.steering import Editor
from revacnn_lightning.steering.edited_models import find_journal
from revacnn_lightning.telemetry.recording.compile_warning import CompileWarningFilter
from revacnn_lightning.telemetry.split_tensors import has_split_parameters

__all__ = ["GuardedLoopSession", "LoopControls"]

log = logging.getLogger(__name__)

MANY_PROCESSES = (
    "this training runs in several processes, which only a Trainer with strategy='ddp' and the "
    "callback ReVACNN can change together"
)
OWN_CLIPPING = (
    "this loop is not a Lightning Trainer: its own code decides how gradients are clipped"
)


@dataclass
class LoopControls:
    """The `controls.ControllableTraining` of a training loop that is not a Lightning Trainer.

    Attributes:
        state: the objects of the loop.
        directory: the folder of checkpoints.
        describe: returns where the training is, for checkpoints.
        stop: ends the loop after the current batch.
    """

    state: LoopState
    directory: Path
    describe: Callable[[], Mapping[str, Any]]
    stop: Callable[[], None]

    @property
    def optimizers(self) -> Sequence[Optimizer]:
        return self.state.optimizers

    @property
    def schedulers(self) -> Sequence[Any]:
        return self.state.schedulers

    @property
    def clipping(self) -> ClippingControl:
        return FixedClipping(OWN_CLIPPING)

    def save_checkpoint(self, name: str) -> str:
        path = self.directory / f"{name}.ckpt"
        self.state.save(path, self.describe())
        return str(path)


class GuardedLoopSession:
    """Monitors one loop from `open` to `close`. An error in it never interrupts the loop.

    Args:
        state: the objects of the loop.
        options: the options of the run.
        controls: controls the loop.
        validation: the loader of the validation data; None if there is none.
    """

    def __init__(
        self, state: LoopState, options: RunOptions, controls: LoopControls, validation: Any
    ) -> None:
        self._state = state
        self._options = options
        self._controls = controls
        self._validation = validation
        self._continuation = RunContinuation(keep_history=options.keep_history)
        self._editor: Editor | None = None
        self._forwards: TrainingStepObserver | None = None
        self._undo: UndoOnlySession | None = None
        self._warning_filter = CompileWarningFilter()
        self._edit_refusal = ""
        self.loader: Any = None  # of the training data, if it is known
        self.session: Session | None = None

    # ------------------------------------------------------------------ life cycle

    def run_state(self) -> dict[str, Any]:
        """Return the state of the run, for checkpoints."""
        return self._continuation.state()

    def resume(self, state: Mapping[str, Any], step: int) -> None:
        """Continue the run of a checkpoint. Call it before `open`."""
        self._continuation.load(state, step)

    def open(self) -> None:
        """Start listening, and log how to attach."""
        self._options.selection.check(self._state.model)  # not guarded: a wrong argument
        with self._guarded():
            self._open()

    def _open(self) -> None:
        state = self._state
        self._editor = self._options.make_editor(
            state.model,
            lambda: state.optimizers,
            lambda: state.holders,
            find_journal(state.model),
        )
        size = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        is_split = has_split_parameters(state.model)
        self._edit_refusal = MANY_PROCESSES if size > 1 else SPLIT if is_split else ""
        self._forwards = TrainingStepObserver(
            state.model,
            self._editor,
            self._options,
            get_class_names=lambda: find_class_names([self._validation, self.loader]),
            refusal=self._edit_refusal,
            prepare=self._on_device,
        )
        if size > 1 and dist.get_rank() > 0:
            return
        self.session = self._make_session(self._editor, self._forwards, size)
        for line in how_to_attach(self.session):
            log.warning("%s", line)  # not info, which Python shows only where logging is set up
        self._warning_filter.install(state.called)  # the recorder does not know the wrapper
        self.session.recorder.attach()

    def _make_session(self, editor: Editor, forwards: TrainingStepObserver, size: int) -> Session:
        options, model = self._options, self._state.model
        about = {"model": type(model).__name__, "name": options.name or ""}
        diagnostics = AlertAndSummaryObservers(options.alert, about)
        names = options.names_of_classes
        lineage, history = self._continuation.begin(model)
        validation = ValidationData(
            lambda: self._validation,
            lambda: self._state.device,
            images=options.images,
            get_class_names=lambda: names or find_class_names([self._validation, self.loader]),
            convert=self._as_weights,
        )
        return Session(
            model,
            editor,
            options.make_recorder(model),
            self._controls,
            options.endpoints,
            sources=InspectionSources.of(validation, forwards, names, self._edit_refusal),
            lineage=lineage,
            history=history,
            recordings=options.recording_settings(self._controls.directory),
            alerts=diagnostics.alerts,
            observers=diagnostics.observers,
            replay=forwards.replay,
            snapshot_interval=options.snapshot_interval,
            ranks=RankZero(size, None, MANY_PROCESSES) if size > 1 else None,
        )

    def _on_device(self, batch: Any) -> Any:
        """Return a batch on the device of the model: a loop may move it later."""
        device = self._state.device
        return map_leaves(batch, lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf)

    def _as_weights(self, image: Tensor) -> Tensor:
        """Return an image in the type of the model's weights."""
        types = (p.dtype for p in self._state.model.parameters() if p.is_floating_point())
        return image.to(next(types, torch.float32)) if image.is_floating_point() else image

    def close(self, state: TrainingState, detail: str = "", *, keep_edits: bool = False) -> None:
        """Publish the final state and release the model."""
        session, self.session = self.session, None
        undo, self._undo = self._undo, None
        self._warning_filter.remove()
        try:
            if session is not None:
                session.close(state, detail, keep_edits=keep_edits)
            if undo is not None:
                undo.close()
        except Exception:  # a bug of this package must not stop the training
            log.warning("ReVACNN did not close cleanly; training continues", exc_info=True)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """End monitoring instead of training if this package fails. The edits stay."""
        try:
            yield
        except Exception as error:
            message = "Internal error in ReVACNN: monitoring stopped, training continues"
            log.warning(message, exc_info=True)
            reason = f"{message} ({type(error).__name__}: {error})"
            self.close("failed", reason, keep_edits=True)
            if self._editor is not None:
                self._undo = UndoOnlySession(self._editor, reason)

    # ------------------------------------------------------------------ a batch

    def submit(self, body: RequestBody, *, dry_run: bool) -> PendingRequest:
        """Queue a request from inside the process, from any thread.

        Raises:
            EditRefusedError: the loop is not monitored.
        """
        handler = self.session or self._undo
        if handler is None:
            raise EditRefusedError("no training is running; call steer inside the with statement")
        return handler.submit(body, dry_run=dry_run)

    def begin_batch(
        self, batch: Any, progress: Progress, *, can_edit: bool
    ) -> AbstractContextManager[AddResult] | None:
        """Handle requests, wait while paused, and return what has to record the step, if any."""
        with self._guarded():
            forwards, handler = self._forwards, self.session or self._undo
            if forwards is None or handler is None:
                return None

            def describe() -> TrainingBatch:
                assert forwards is not None
                return forwards.begin_batch(
                    batch,
                    progress,
                    can_edit=can_edit,
                    edit_refusal=self._edit_refusal,
                    loss_scale=self._state.loss_scale,
                )

            if self.session is not None:
                self.session.begin_batch(describe())
            elif self._undo is not None:
                self._undo.begin_batch(describe)
            return forwards.recording_if_needed(progress.step) if handler.needs_probe else None
        return None

    def end_batch(
        self,
        loss: Tensor | float | None,
        metrics: Mapping[str, Tensor | float],
        loss_factor: float,
    ) -> None:
        """Publish the batch."""
        with self._guarded():
            if self.session is not None:
                self.session.end_batch(
                    loss=loss,
                    get_learning_rates=lambda: learning_rates(self._state.optimizers),
                    get_metrics=lambda: dict(metrics),
                    loss_factor=loss_factor,
                )

    def release_batch(self) -> None:
        """Release the tensors of the batch."""
        if self._forwards is not None:
            self._forwards.end_batch()

    def respond(self) -> None:
        """Handle requests that need no training batch."""
        with self._guarded():
            if self.session is not None:
                self.session.handle_during_validation()
