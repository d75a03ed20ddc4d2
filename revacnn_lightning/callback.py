"""`ReVACNN`: Lightning's hooks on one side, the run's session on the other.

The only file that imports Lightning. It works with `pytorch_lightning` and with
`lightning.pytorch`, whichever the user's Trainer comes from.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.requests import Edit
from revacnn_lightning.runtime.batch import Progress
from revacnn_lightning.runtime.controls import TrainerControls
from revacnn_lightning.runtime.layer_details import Forward
from revacnn_lightning.runtime.request_queue import PendingRequest
from revacnn_lightning.runtime.sample_forward import (
    SAMPLES,
    UserForward,
    batch_size,
    forward_takes_images,
    forwards_of,
    images_of,
)
from revacnn_lightning.runtime.server import Endpoints
from revacnn_lightning.runtime.session import Session
from revacnn_lightning.runtime.trainer_adapter import (
    edit_refusal,
    inspection_refusal,
    logged_numbers,
    loss_scale,
    validation_image,
)
from revacnn_lightning.steering import Editor, ForwardProbe, Journal
from revacnn_lightning.steering.checkpoint import (
    STATE_KEY,
    find_state,
    order_param_groups,
    replay_for_load,
    state_to_save,
)
from revacnn_lightning.telemetry import DEFAULT_STATISTICS, STATISTICS, Recorder

if TYPE_CHECKING:
    from pytorch_lightning import Callback, LightningModule, Trainer
    from pytorch_lightning.utilities import rank_zero_info
elif find_spec("lightning") and "pytorch_lightning" not in sys.modules:
    from lightning.pytorch import Callback
    from lightning.pytorch.utilities import rank_zero_info
else:
    from pytorch_lightning import Callback
    from pytorch_lightning.utilities import rank_zero_info

__all__ = ["ReVACNN"]

log = logging.getLogger(__name__)

METRICS_EVERY = 10  # batches; reading a logged metric may wait for the device

Hook = TypeVar("Hook", bound=Callable[..., None])


def disable_on_error(hook: Hook) -> Hook:
    """A fault of ours is logged and ends the watching; it never stops the training."""

    @functools.wraps(hook)
    def guarded(self: ReVACNN, *args: Any, **kwargs: Any) -> None:
        if self._broken:
            return
        try:
            hook(self, *args, **kwargs)
        except Exception as error:  # the training must outlive any fault of ours
            log.warning("ReVACNN stops watching this run, the training goes on", exc_info=True)
            self._broken = True
            self._close(
                "failed", f"ReVACNN met an error of its own, and let go of the run: {error}"
            )

    return guarded  # type: ignore[return-value]


class ReVACNN(Callback):
    """Shows every filter of the network live, and lets it be changed while it trains.

    Nothing is gathered, and next to nothing spent, as long as no viewer is attached.

    Args:
        host: address to listen on. The default is reachable from this machine only; from another
            one, forward the ports with ssh (the command is logged when the run starts).
        telemetry_port: port of the telemetry; 0 takes a free one.
        request_port: port of the requests; 0 takes a free one.
        connection_file: where to write the connection file; None: in the user's runtime
            directory, where a viewer on this machine finds it by itself.
        statistics: what to gather of each filter, of `telemetry.STATISTICS`.
        max_overhead: share of a training step that gathering may cost, 0.03 for 3 %. On a machine
            where it costs more, the dear statistics are gathered on some batches only (the page
            says on which), never the gradient and the activation. None: everything, always.
        forward: ``(module, batch) -> output``, one forward on a batch, for tracing which channels
            belong together. Needed only where neither ``module(images)`` nor ``training_step``
            shows how the network is really used.

    Raises:
        ValueError: a statistic that does not exist, a port or a share out of range.

    Example::

        trainer = Trainer(max_epochs=10, callbacks=[ReVACNN()])
        trainer.fit(model, data)        # and in another terminal: revacnn view
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        telemetry_port: int = 0,
        request_port: int = 0,
        connection_file: str | Path | None = None,
        statistics: Sequence[str] = DEFAULT_STATISTICS,
        max_overhead: float | None = 0.03,
        forward: UserForward | None = None,
    ) -> None:
        super().__init__()
        for port in (telemetry_port, request_port):
            if not 0 <= port <= 65535:
                raise ValueError(f"port {port} is out of range; 0 takes a free one")
        unknown = set(statistics) - set(STATISTICS)
        if unknown:
            raise ValueError(f"unknown statistics {sorted(unknown)}; there are {list(STATISTICS)}")
        if max_overhead is not None and not 0 < max_overhead <= 1:
            raise ValueError(f"max_overhead {max_overhead} is no share of a step; 0.03 means 3 %")
        file = Path(connection_file).expanduser() if connection_file else None
        self._endpoints = Endpoints(host, telemetry_port, request_port, file)
        self._statistics = tuple(statistics)
        self._max_overhead = max_overhead
        self._forward = forward
        self._session: Session | None = None
        self._editor: Editor | None = None  # outlives the session: checkpoints need its journal
        self._resumed: dict[str, Any] | None = None  # what the checkpoint of an edited run holds
        self._broken = False
        self._step = 0  # training batches so far, counted over resumed fits too
        self._metrics: dict[str, float] = {}

    # ------------------------------------------------------------------ life

    @property
    def connection_file(self) -> Path | None:
        """The connection file while the run can be watched, else None."""
        return None if self._session is None else self._session.file

    def steer(self, edit: Edit, *, dry_run: bool = False) -> PendingRequest:
        """Ask for an edit from inside the training process: a callback, or another thread.

        It is carried out at the next batch boundary; then the returned object has the reply.

        Raises:
            Refused: no training is running that could be changed.
        """
        if self._session is None:
            raise EditRefusedError("no training is running; steer while trainer.fit runs")
        return self._session.submit(edit, dry_run=dry_run)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            if self._edits_of(pl_module) is None:
                self._editor = None  # it belongs to another model
            self._replay_before_weights_load(pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.__dict__.pop("on_load_checkpoint", None)
        if self._resumed is not None:
            # Not guarded: with another order the optimizer would train with foreign state.
            order_param_groups(pl_module, trainer.optimizers, self._resumed)
        self._resumed = None
        if trainer.is_global_zero:
            self._open(trainer, pl_module)

    @disable_on_error
    def _open(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start to listen, and tell how to watch."""
        self._close()
        self._editor = Editor(pl_module, trainer.optimizers, journal=self._edits_of(pl_module))
        self._session = Session(
            pl_module,
            self._editor,
            Recorder(pl_module, statistics=self._statistics, max_overhead=self._max_overhead),
            TrainerControls(trainer),
            self._endpoints,
            images=functools.partial(validation_image, trainer),
            forward=self._forward_of_images(pl_module),
            inspection_refusal=inspection_refusal(trainer),
        )
        rank_zero_info(
            "ReVACNN: watch this run with `revacnn view`. From another machine: copy "
            f"{self._session.file}, run `{self._session.connection.ssh_command()}` and then "
            "`revacnn view --connect` with the copy."
        )

    @disable_on_error
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._session is not None:
            self._session.recorder.attach()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close("finished")

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        pl_module.__dict__.pop("on_load_checkpoint", None)
        if isinstance(exception, KeyboardInterrupt):
            self._close("finished", "stopped by hand")
        else:
            self._close("failed", f"{type(exception).__name__}: {exception}".removesuffix(": "))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        pl_module.__dict__.pop("on_load_checkpoint", None)
        self._close()

    def _close(self, state: Any = "finished", detail: str = "") -> None:
        """Let go of everything. May be called again; a fault here is logged, no more."""
        session, self._session = self._session, None
        if session is None:
            return
        try:
            session.close(state, detail)
        except Exception:  # the training must outlive any fault of ours
            log.warning("ReVACNN could not close cleanly", exc_info=True)

    # ------------------------------------------------------------------ a batch

    @disable_on_error
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._session is None:
            return
        self._session.before_batch(
            self._progress(trainer, batch_idx),
            lambda: self._probe(trainer, pl_module, batch, batch_idx),
            may_edit=batch_idx % trainer.accumulate_grad_batches == 0,
            edit_refusal=edit_refusal(trainer),
            loss_scale=loss_scale(trainer),
            images=lambda: images_of(batch),
        )

    @disable_on_error
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self._session is None:
            return
        if self._session.recording and self._step % METRICS_EVERY == 0:
            self._metrics = logged_numbers(trainer.callback_metrics)
        self._step += 1
        accumulated = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
        self._session.after_batch(
            loss=outputs.get("loss") if isinstance(outputs, dict) else outputs,
            learning_rates=[
                float(group["lr"]) for opt in trainer.optimizers for group in opt.param_groups
            ],
            metrics=self._metrics,
            loss_factor=1 / accumulated,  # Lightning hands the loss on divided
            images=lambda: images_of(batch),
        )

    @disable_on_error
    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._session is not None:
            self._session.during_validation()

    def _progress(self, trainer: Trainer, batch_idx: int) -> Progress:
        batches = trainer.num_training_batches
        return Progress(
            step=self._step,
            epoch=trainer.current_epoch,
            batch=batch_idx,
            batches=int(batches) if batches != float("inf") else 0,
            epochs=max(0, trainer.max_epochs or 0),
        )

    def _probe(
        self, trainer: Trainer, module: LightningModule, batch: Any, index: int
    ) -> ForwardProbe:
        context = trainer.precision_plugin.train_step_context
        forwards = forwards_of(module, batch, index, context=context, user_forward=self._forward)
        return ForwardProbe(forwards, samples=max(1, min(SAMPLES, batch_size(batch))))

    def _forward_of_images(self, module: LightningModule) -> Forward | None:
        """Takes a batch of images through the module; None if we do not know how."""
        own = self._forward
        if own is not None:
            return lambda images: own(module, images)
        return module if forward_takes_images(module) else None

    # ------------------------------------------------------------------ checkpoints

    def state_dict(self) -> dict[str, Any]:
        return {"step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._step = state_dict["step"]

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # Also after the run was let go of: without its edits the weights would be unreadable.
        if self._editor is not None and self._editor.journal.version > 0:
            checkpoint[STATE_KEY] = state_to_save(self._editor)

    def _replay_before_weights_load(self, module: LightningModule) -> None:
        """Have an edited run's checkpoint resume on the unedited model class.

        Lightning shows a callback the checkpoint only after the weights were loaded, which would
        not fit. The module's own `on_load_checkpoint` runs before: until the fit starts it is
        wrapped on the instance.
        """
        module.__dict__.pop("on_load_checkpoint", None)
        load = module.on_load_checkpoint

        def replay_then_load(checkpoint: dict[str, Any]) -> None:
            state = find_state(checkpoint)
            if state is not None:
                self._resumed = state
                if self._edits_of(module) is None:  # else it has its edits already
                    self._editor = Editor(module, journal=replay_for_load(module, state))
            load(checkpoint)

        module.__dict__["on_load_checkpoint"] = replay_then_load

    def _edits_of(self, module: LightningModule) -> Journal | None:
        """The edits that were made to this very module before, by an earlier fit or a resume."""
        editor = self._editor
        return editor.journal if editor is not None and editor.model is module else None
