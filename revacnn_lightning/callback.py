"""`ReVACNN`: connects Lightning's hooks to the session of the run.

This is the only file that imports Lightning. It works with `pytorch_lightning` and with
`lightning.pytorch`, whichever the user's Trainer comes from.
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.messages import TrainingState
from revacnn_lightning.protocol.requests import RequestBody
from revacnn_lightning.runtime.alert_delivery import AlertTarget
from revacnn_lightning.runtime.batch import TrainingBatch
from revacnn_lightning.runtime.batch_images import ImagesOfBatch
from revacnn_lightning.runtime.checkpoint_hooks import CheckpointHooks
from revacnn_lightning.runtime.fresh_copies import FreshCopyMixin
from revacnn_lightning.runtime.how_to_attach import how_to_attach
from revacnn_lightning.runtime.hyperparameters import learning_rates
from revacnn_lightning.runtime.inspection_collectors import InspectionSources
from revacnn_lightning.runtime.ranks.processes import FitProcessCoordinator
from revacnn_lightning.runtime.ranks.started_processes import (
    add_edits_to_state_dict,
    adopt_edits_when_loaded,
    was_started_by_multiprocessing,
)
from revacnn_lightning.runtime.ranks.training_refusals import (
    are_parameters_split,
    edit_refusal,
    extra_backward_refusal,
    extra_forward_refusal,
)
from revacnn_lightning.runtime.request_queue import PendingRequest
from revacnn_lightning.runtime.run_continuation import RunContinuation
from revacnn_lightning.runtime.run_diagnostics import AlertAndSummaryObservers
from revacnn_lightning.runtime.run_options import RunOptions
from revacnn_lightning.runtime.sample_forward import UserForward
from revacnn_lightning.runtime.session import Session
from revacnn_lightning.runtime.trainer_adapter import (
    TrainerControls,
    data_class_names,
    loads_checkpoint_after_start,
    loss_scale,
    other_callbacks_as_copy_holders,
    progress_of,
    record_next_step,
    scalar_metrics,
    validation_data,
)
from revacnn_lightning.runtime.trainer_clipping import TrainerClipping
from revacnn_lightning.runtime.training_step_observer import TrainingStepObserver
from revacnn_lightning.runtime.trial.trainer_loop import RepeatableTrainerLoop
from revacnn_lightning.runtime.undo_after_failure import UndoOnlySession
from revacnn_lightning.steering import Editor
from revacnn_lightning.steering.checkpoint import add_edits
from revacnn_lightning.steering.edit_mark import is_marked_edited
from revacnn_lightning.steering.edited_models import find_journal
from revacnn_lightning.steering.execution.initialization import Initialization
from revacnn_lightning.telemetry import DEFAULT_STATISTICS
from revacnn_lightning.telemetry.layer_selection import LayerChoice

if TYPE_CHECKING:
    from pytorch_lightning import Callback, LightningModule, Trainer
    from pytorch_lightning.loggers.logger import DummyLogger
    from pytorch_lightning.utilities import rank_zero_info
    from pytorch_lightning.utilities.enums import GradClipAlgorithmType
elif find_spec("lightning") and "pytorch_lightning" not in sys.modules:
    from lightning.pytorch import Callback
    from lightning.pytorch.loggers.logger import DummyLogger
    from lightning.pytorch.utilities import rank_zero_info
    from lightning.pytorch.utilities.enums import GradClipAlgorithmType
else:
    from pytorch_lightning import Callback
    from pytorch_lightning.loggers.logger import DummyLogger
    from pytorch_lightning.utilities import rank_zero_info
    from pytorch_lightning.utilities.enums import GradClipAlgorithmType

__all__ = ["ReVACNN"]

log = logging.getLogger(__name__)

_reserving = threading.Lock()  # trainings in several threads may share a callback

Hook = TypeVar("Hook", bound=Callable[..., None])


def disable_on_error(hook: Hook) -> Hook:
    """Decorate a hook so that an exception in it ends monitoring instead of training.

    The hook is called only for the trainer whose fit is monitored.
    """

    @functools.wraps(hook)
    def guarded(self: ReVACNN, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if self._is_disabled or trainer is not self._monitored:
            return
        try:
            hook(self, trainer, *args, **kwargs)
        except Exception as error:  # a bug of this package must not stop the training
            message = "Internal error in ReVACNN: monitoring stopped, training continues"
            log.warning(message, exc_info=True)
            self._stop_monitoring(message, f"{type(error).__name__}: {error}")

    return guarded  # type: ignore[return-value]


class ReVACNN(FreshCopyMixin, Callback):
    """Monitors every filter of the network and edits the network while it trains.

    With no viewer attached, only a few batches are recorded, for the history of the run, and the
    overhead is negligible. Errors in the viewer, the network or this callback never interrupt
    training.

    Args:
        host: address to listen on with TCP. By default, the run uses Unix sockets that only you can
            open; to view it from another machine, forward them with ssh (the command is logged at
            the start).
        telemetry_port: TCP port for telemetry; 0 picks a free port if ``host`` is given.
        request_port: TCP port for requests; 0 picks a free port if ``host`` is given.
        connection_file: path of the connection file; None: a file in the user's runtime directory,
            where viewers on this machine find it.
        statistics: the statistics to record of every filter of all layers. Besides the default,
            ``"optimizer_gradient"``, ``"activation_gradient"``, ``"firing"`` and
            ``"signal_to_noise"``; `telemetry.statistics` defines them.
        max_overhead: the share of a training step that recording may cost, 0.03 for 3 %. If
            recording costs more, the expensive statistics are sampled less often (the page shows
            how often); the gradient and the activation are always recorded. None: no limit.
        keep_history: keep the loss, the metrics, the learning rates and the mean statistics of the
            layers since the first batch, so that a viewer that attaches late shows the whole run.
            This costs at most 0.1 % of a step and 8 MB, also of checkpoints, which keep it, too.
        forward: ``(module, batch) -> output``, one forward on a batch, for tracing coupled filters.
            By default, the network is used as ``module(images)`` and ``training_step`` use it.
            ``training_step`` itself is only observed, never called.
        images: ``batch -> images``, a tensor (B, channels, H, W) or a list of tensors (channels, H,
            W). Needed only if a batch holds tensors that look like its images but are not.
        class_names: the names of the outputs of the network, in order. By default, the ``classes``
            of the validation or training dataset or of the data module, else their numbers.
        name: the name of this run in viewers, in one line of at most 80 characters. Without a name,
            they show the class of the model and the time of the start.
        copies: module -> the module that it is a copy of, such as ``{"teacher": "student"}``, or
            None if it is not a copy. Needed only if an edit is refused because the values do not
            show which it is. Edits change copies (averages, momentum encoders) along.
        layers: the layers to show: ``"conv"``, all convolutions; ``"all"``, all convolutions
            and linear layers; or a list of names and patterns, such as ``["backbone.*", "fc1"]``,
            of layers and of modules that contain layers. By default, all convolutions, and the
            hidden linear layers between the last convolution and the output. The units of a linear
            layer are its filters.
        init: ``init(module)`` initializes the parameters of one layer in place, as a function for
            ``nn.Module.apply`` does. New filters start with the values that it draws; without it,
            with those of the layer's own ``reset_parameters``.
        record: file to record the run to, such as ``"run.mcap"``: every batch, every edit and all
            else that viewers receive. ``revacnn view --replay run.mcap`` shows it. If the file
            exists, the new one gets a number. Recordings that are started later, in the page, are
            in the same folder, by default ``revacnn`` in the trainer's ``default_root_dir``.
            Requires the package mcap: ``pip install 'revacnn-lightning[record]'``.
        keep_batches: write the last batches, such as 200, to a file of the same kind in this folder
            if the loss becomes NaN or infinite, or if an exception ends the training. They take at
            most 48 MB of memory. Like ``record``, this records every batch, which may cost up to
            ``max_overhead`` of a step.
        log_to_loggers: log the mean gradient, activation and update ratio, the share of dead
            filters and the findings (how many filters are dead, all zero or not finite) of each
            layer to the loggers of the Trainer, at its ``log_every_n_steps``, and the edits. Off by
            default, so that adding this callback does not change what your loggers record.
        alert: receives an alert if the loss becomes NaN or diverges, if all filters of a layer die,
            or if validation stalls: the address of a webhook, to which JSON is posted; a command,
            as a string or a list, whose standard input is that JSON; or a function of an `Alert`,
            which is called in another thread. All alerts are also logged and shown in the page.
        publish: how often viewers, recordings and loggers receive statistics: ``"every batch"``, or
            at most at a rate such as ``"10 Hz"``. Each batch is recorded all the same; the batches
            between are merged into one message with the mean and the maximum of each value. This
            saves time in a training with hundreds of batches per second.

    Raises:
        ValueError: an unknown statistic or choice of layers, a port or share out of range, a name
            that is too long, ``class_names`` that are no list of strings, or alerts cannot be
            passed on as ``alert`` says, or ``publish`` is neither.
        MissingPackageError: ``record`` or ``keep_batches`` is given, and mcap is not installed.

    Examples:
        >>> trainer = Trainer(max_epochs=10, callbacks=[ReVACNN()])
        >>> trainer.fit(model, data)  # and in another terminal: revacnn view
    """

    RUN_STATE = (
        "_session", "_forwards", "_editor", "_monitored", "_is_disabled", "_undo_after_failure",
        "_continuation", "_processes", "_edit_refusal", "_is_split", "_clipping",
        "_resumed_clipping",
    )  # fmt: skip

    def __init__(
        self,
        *,
        host: str | None = None,
        telemetry_port: int = 0,
        request_port: int = 0,
        connection_file: str | Path | None = None,
        statistics: Sequence[str] = DEFAULT_STATISTICS,
        max_overhead: float | None = 0.03,
        keep_history: bool = True,
        forward: UserForward | None = None,
        images: ImagesOfBatch | None = None,
        class_names: Sequence[str] | None = None,
        name: str | None = None,
        copies: Mapping[str, str | None] | None = None,
        layers: LayerChoice = None,
        init: Initialization | None = None,
        record: str | Path | None = None,
        keep_batches: int = 0,
        log_to_loggers: bool = False,
        alert: AlertTarget | None = None,
        publish: str = "every batch",
    ) -> None:
        super().__init__()
        self._options = RunOptions(
            host=host,
            telemetry_port=telemetry_port,
            request_port=request_port,
            connection_file=connection_file,
            statistics=statistics,
            max_overhead=max_overhead,
            keep_history=keep_history,
            forward=forward,
            images=images,
            class_names=class_names,
            name=name,
            copies=copies,
            layers=layers,
            init=init,
            record=record,
            keep_batches=keep_batches,
            alert=alert,
            publish=publish,
        )
        self._log_to_loggers = log_to_loggers
        self._begin_without_run()

    def _begin_without_run(self) -> None:
        self._session: Session | None = None
        self._forwards: TrainingStepObserver | None = None
        self._editor: Editor | None = None
        self._monitored: Trainer | None = None
        self._is_disabled = False
        self._undo_after_failure: UndoOnlySession | None = None
        self._continuation = RunContinuation(keep_history=self._options.keep_history)
        self._processes: FitProcessCoordinator | None = None  # of the training, during a fit
        self._edit_refusal = ""
        self._is_split = False  # whether each process has a part of the parameters only
        self._clipping: TrainerClipping | None = None  # of the last fit
        self._resumed_clipping: dict[str, Any] = {}  # from a checkpoint, for the next fit

    # ------------------------------------------------------------------ public

    @property
    def connection_file(self) -> Path | None:
        """The connection file while the run can be monitored, else None."""
        return None if self._session is None else self._session.connection_file

    def steer(self, body: RequestBody, *, dry_run: bool = False) -> PendingRequest:
        """Submit an edit or a command from inside the training process, in any thread.

        It is handled at the next batch boundary; then the returned object holds the reply. After
        an internal error has stopped monitoring, edits can still be undone: ``steer(Undo())``.

        Args:
            body: an edit, such as `RemoveFilters`, or a command, such as `ControlRun`.
            dry_run: plan the edit without applying it.

        Raises:
            EditRefusedError: no training is running.
        """
        handler = self._session or self._undo_after_failure
        if handler is None:
            raise EditRefusedError("no training is running; call steer while trainer.fit runs")
        return handler.submit(body, dry_run=dry_run)

    def prepare(self, module: LightningModule) -> None:
        """Let a network be edited in processes that Lightning starts for the training.

        Only needed with ``ddp_spawn``, ``ddp_fork`` and ``ddp_notebook``: the network of this
        process gets the weights of the trained one in the end, and now its edits, too.

        Args:
            module: the module that `Trainer.fit` will get.
        """
        adopt_edits_when_loaded(module)

    # ------------------------------------------------------------------ a fit

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        CheckpointHooks(pl_module, trainer, self._options.copies).install()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if find_journal(pl_module) is None:  # an edit may have removed what a pattern selects
            self._options.selection.check(pl_module)  # not guarded: a wrong argument
        hooks = CheckpointHooks.installed_on(pl_module)
        if hooks is not None:
            # Not guarded: in the wrong order, the optimizer would train with the state of others.
            hooks.begin_loading(trainer.optimizers)
        if self._reserve_for(trainer):
            self._is_disabled = False
            if not loads_checkpoint_after_start(trainer):
                self._open(trainer, pl_module)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._open_after_loading(trainer, pl_module)

    def _open_after_loading(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open a run whose checkpoint, if there is one, is loaded after ``on_fit_start``."""
        if self._processes is None and loads_checkpoint_after_start(trainer):
            self._open(trainer, pl_module)

    def _reserve_for(self, trainer: Trainer) -> bool:
        """Monitor this trainer until its fit ends, unless another one is being monitored."""
        with _reserving:
            if self._monitored is None:
                self._monitored = trainer
        if self._monitored is not trainer:
            log.warning(
                "This ReVACNN callback monitors another training, so this one is not monitored; "
                "pass each Trainer a ReVACNN() of its own"
            )
        return self._monitored is trainer

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        hooks = CheckpointHooks.installed_on(pl_module)
        if hooks is not None:
            hooks.finish_loading()
        self._open_after_loading(trainer, pl_module)
        self._attach(trainer)

    @disable_on_error
    def _attach(self, trainer: Trainer) -> None:
        if self._session is not None:
            self._session.recorder.attach()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer is self._monitored:
            self._close("finished")
            self._leave_processes(is_clean=True)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        if trainer is self._monitored:
            if isinstance(exception, KeyboardInterrupt):
                self._close("finished", "interrupted with Ctrl-C")
            else:
                detail = f"{type(exception).__name__}: {exception}".removesuffix(": ")
                loss = "" if self._processes is None else self._processes.describe_first_lost_rank()
                self._close("failed", f"{loss} ({detail})" if loss else detail)
                self._leave_processes(is_clean=False, failure=detail)
        self._release(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._release(trainer, pl_module)

    def _release(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave nothing on the module, whichever trainer ran it."""
        hooks = CheckpointHooks.installed_on(pl_module)
        if hooks is not None and hooks.trainer is trainer:
            hooks.remove()
        if trainer is self._monitored:
            if was_started_by_multiprocessing(trainer):
                add_edits_to_state_dict(
                    pl_module
                )  # not earlier: checkpoints have the edits already
            self._close()
            self._leave_processes(is_clean=False)
            if self._clipping is not None:
                self._clipping.close()
            self._editor = self._monitored = None

    def _leave_processes(self, *, is_clean: bool, failure: str | None = None) -> None:
        processes, self._processes = self._processes, None
        if processes is not None:
            processes.close(is_clean=is_clean, failure=failure)

    @disable_on_error
    def _open(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start listening, and log how to attach."""
        self._close()
        processes = self._processes = FitProcessCoordinator(trainer)
        journal = find_journal(pl_module)
        if journal is None and is_marked_edited(pl_module):
            log.warning(
                "This model was edited before, in a way that is unknown in this process, so the "
                "checkpoints of this run will lack these edits. To keep them, load the model with "
                "load_edited or trainer.fit(ckpt_path=...)"
            )
        self._is_split = are_parameters_split(trainer, pl_module)
        self._editor = self._options.make_editor(
            pl_module,
            lambda: trainer.optimizers,  # training may replace them
            functools.partial(other_callbacks_as_copy_holders, trainer),
            journal,
            is_split=self._is_split,
        )
        self._clipping = TrainerClipping(trainer, pl_module, GradClipAlgorithmType)
        self._clipping.resume(self._resumed_clipping)
        self._resumed_clipping = {}
        controls = TrainerControls(trainer, self._clipping)
        processes.start(
            self._editor,
            controls,
            lambda: self._options.make_recorder(pl_module),
        )
        self._edit_refusal = edit_refusal(trainer, pl_module)
        self._forwards = TrainingStepObserver(
            pl_module,
            self._editor,
            self._options,
            functools.partial(_forward_context, trainer),
            lambda: data_class_names(trainer),
            extra_forward_refusal(trainer, pl_module),
            is_split=self._is_split,
        )
        if trainer.is_global_zero:
            session = self._make_session(trainer, pl_module, controls, self._editor, self._forwards)
            self._open_session(session, processes, pl_module)

    def _open_session(
        self, session: Session, processes: FitProcessCoordinator, pl_module: LightningModule
    ) -> None:
        """Connect the session with the parts of the training, and log how to attach."""
        self._session = session
        hooks = CheckpointHooks.installed_on(pl_module)
        if hooks is not None:
            hooks.check_can_save = session.trial.check_can_save
        processes.publish_states(session.publish_rank_states)
        for line in how_to_attach(session):
            rank_zero_info(line)
        left_out = self._options.selection.left_out(pl_module)
        if left_out:
            log.warning(
                "Tensor parallelism splits the outputs of %s among the processes, so ReVACNN does "
                "not show them",
                ", ".join(left_out),
            )

    def _make_session(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        controls: TrainerControls,
        editor: Editor,
        forwards: TrainingStepObserver,
    ) -> Session:
        options = self._options
        names = options.names_of_classes
        refusal = extra_backward_refusal(trainer, pl_module)
        validation = validation_data(trainer, options.images, names)
        lineage, history = self._continuation.begin(pl_module)
        diagnostics = AlertAndSummaryObservers(
            options.alert,
            {"model": type(pl_module).__name__, "name": options.name or ""},
            trainer if self._log_to_loggers else None,
        )
        return Session(
            pl_module,
            editor,
            options.make_recorder(pl_module),
            controls,
            options.endpoints,
            sources=InspectionSources.of(validation, forwards, names, refusal),
            lineage=lineage,
            history=history,
            recordings=options.recording_settings(Path(trainer.default_root_dir) / "revacnn"),
            alerts=diagnostics.alerts,
            observers=diagnostics.observers,
            replay=forwards.replay,
            snapshot_interval=options.snapshot_interval,
            ranks=None if self._processes is None else self._processes.ranks,
            trial_loop=RepeatableTrainerLoop(
                trainer, pl_module, functools.partial(_forward_context, trainer)
            ),
        )

    def _close(
        self, state: TrainingState = "finished", detail: str = "", *, keep_edits: bool = False
    ) -> None:
        """Close the session, if one is open. An error is logged and does not interrupt training."""
        session, self._session = self._session, None
        if self._forwards is not None:
            self._forwards.end_batch()
        undo, self._undo_after_failure = self._undo_after_failure, None
        try:
            if session is not None:
                session.close(state, detail, keep_edits=keep_edits)
            if undo is not None:
                undo.close()
        except Exception:  # a bug of this package must not stop the training
            log.warning("ReVACNN did not close cleanly; training continues", exc_info=True)

    def _stop_monitoring(self, message: str, error: str) -> None:
        """Close the session after an internal error. The edits stay, and can be undone."""
        self._is_disabled = True
        reason = f"{message} ({error})"
        self._close("failed", reason, keep_edits=True)
        if self._processes is not None:
            self._processes.report_error(error)
        if self._editor is not None:
            ranks = None if self._processes is None else self._processes.ranks
            self._undo_after_failure = UndoOnlySession(self._editor, reason, ranks)

    # ------------------------------------------------------------------ a batch

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        processes = self._processes
        if processes is None or trainer is not self._monitored:
            return

        def make_batch() -> TrainingBatch:
            return self._training_batch(trainer, batch, batch_idx)

        processes.begin_batch(make_batch)
        if self._undo_after_failure is None:
            self._begin_batch(trainer, make_batch)
        else:
            self._undo(trainer, make_batch)
        handler = self._session or self._undo_after_failure
        processes.resume_all_ranks(None if handler is None else lambda: handler.stop_reasons)
        processes.update_model(self._editor)  # not guarded: it would train with wrong gradients
        if processes.recording is not None:
            processes.recording.begin_batch(lambda: loss_scale(trainer))

    @disable_on_error
    def _begin_batch(self, trainer: Trainer, make_batch: Callable[[], TrainingBatch]) -> None:
        if self._session is not None:
            self._session.begin_batch(make_batch())
        self._record_if_needed(trainer)

    def _undo(self, trainer: Trainer, make_batch: Callable[[], TrainingBatch]) -> None:
        """Undo edits in a run whose monitoring has stopped."""
        try:
            if self._undo_after_failure is not None:
                self._undo_after_failure.begin_batch(make_batch)
            self._record_if_needed(trainer)
        except Exception:  # a bug of this package must not stop the training
            log.warning("Edits can no longer be undone; training continues", exc_info=True)
            self._close()

    def _training_batch(self, trainer: Trainer, batch: Any, batch_idx: int) -> TrainingBatch:
        forwards, processes = self._forwards, self._processes
        assert processes is not None
        assert forwards is not None
        return forwards.begin_batch(
            batch,
            progress_of(trainer, self._continuation.step, batch_idx),
            can_edit=batch_idx % trainer.accumulate_grad_batches == 0,
            edit_refusal=processes.ranks.refusal or self._edit_refusal,
            can_freeze=self._is_split and not processes.ranks.refusal,
            loss_scale=loss_scale(trainer),
        )

    def _record_if_needed(self, trainer: Trainer) -> None:
        """Record the training step of this batch if somebody needs to know what it does."""
        forwards = self._forwards
        of_trial = None if self._session is None else self._session.trial.recording()
        if of_trial is not None:
            record_next_step(trainer, of_trial)
            return
        handler = self._session or self._undo_after_failure or self._processes
        if forwards is None or handler is None or not handler.needs_probe:
            return
        recording = forwards.recording_if_needed(self._continuation.step)
        if recording is not None:
            record_next_step(trainer, recording)

    @disable_on_error
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        accumulated = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        recording = None if self._processes is None else self._processes.recording
        if recording is not None:
            recording.end_batch(loss, 1 / accumulated)
        if self._session is None:
            return
        self._continuation.step += 1
        self._session.end_batch(
            loss=loss,
            get_learning_rates=lambda: learning_rates(trainer.optimizers),
            get_metrics=lambda: scalar_metrics(trainer),
            loss_factor=1 / accumulated,  # Lightning divides the loss by this number
        )
        if self._forwards is not None:
            self._forwards.end_batch()

    @disable_on_error
    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        session, forwards = self._session, self._forwards
        if session is None:
            return
        session.handle_during_validation()
        if forwards is not None and dataloader_idx == 0 and not trainer.sanity_checking:
            session.confusion.begin_batch(lambda: forwards.classes_of(batch))

    @disable_on_error
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._session is not None:
            self._session.confusion.end_batch()

    @disable_on_error
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._session is not None:
            self._session.end_validation()

    # ------------------------------------------------------------------ checkpoints

    def state_dict(self) -> dict[str, Any]:
        clipping = {} if self._clipping is None else self._clipping.state()
        return {"step": self._continuation.step, **self._continuation.state(), **clipping}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._session is None:  # else it is of another training
            self._continuation.load(state_dict, state_dict["step"])
            self._resumed_clipping = state_dict

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # Also when monitoring has stopped: without the edits, the weights could not be loaded.
        if (
            CheckpointHooks.installed_on(pl_module) is None
        ):  # they add the edits later, after all callbacks
            add_edits(checkpoint, pl_module, trainer.optimizers)


@contextmanager
def _forward_context(trainer: Trainer) -> Iterator[None]:
    """Run a forward as in a training step, but without the loggers."""
    loggers, trainer.loggers = trainer.loggers, [DummyLogger() for _ in trainer.loggers]
    try:
        with trainer.precision_plugin.train_step_context():
            yield
    finally:
        trainer.loggers = loggers
