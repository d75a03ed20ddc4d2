"""`LoopRun`: the monitoring of a loop without a Lightning Trainer, as its own code sees it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from torch import Tensor

from revacnn_lightning.protocol.requests import RequestBody
from revacnn_lightning.runtime.batch import Progress
from revacnn_lightning.runtime.loop_monitor import GuardedLoopSession, LoopControls
from revacnn_lightning.runtime.loop_state import LoopState
from revacnn_lightning.runtime.metric_reader import is_scalar
from revacnn_lightning.runtime.request_queue import PendingRequest
from revacnn_lightning.runtime.run_options import RunOptions
from revacnn_lightning.steering.loading import File

__all__ = ["LoopRun", "LoopSettings"]

T = TypeVar("T")


@dataclass(frozen=True)
class LoopSettings:
    """Settings of a training loop: the arguments of `monitor` that `ReVACNN` does not have."""

    validation: Any = None
    accumulate_grad_batches: int = 1
    directory: str | Path = "revacnn"
    resume_from: File | None = None

    def __post_init__(self) -> None:
        if self.accumulate_grad_batches < 1:
            raise ValueError(
                f"accumulate_grad_batches must be at least 1, not {self.accumulate_grad_batches}"
            )


class LoopRun:
    """What `monitor` returns: a loop that viewers see, edit and control, in a ``with`` statement.

    An error in this package never interrupts the loop: monitoring stops, and
    the log says why.

    Attributes:
        step: training batches so far, including those before a resume.
        epoch: the present epoch, from 0.
        should_stop: whether somebody has ended the training. `epochs` and `batches` end then.
    """

    def __init__(self, state: LoopState, options: RunOptions, settings: LoopSettings) -> None:
        self.step = self.epoch = 0
        self.should_stop = False
        self._state = state
        self._settings = settings
        self._batch_index = self._batches_per_epoch = self._max_epochs = 0
        self._has_epoch = False  # whether the present epoch has begun
        self._is_in_epochs = False
        self._is_in_batch = False
        self._loss: Tensor | float | None = None
        self._metrics: dict[str, Tensor | float] = {}
        controls = LoopControls(state, Path(settings.directory), self._describe, self._stop)
        self._monitor = GuardedLoopSession(state, options, controls, settings.validation)
        self._phase = "new"

    # ------------------------------------------------------------------ life cycle

    def __enter__(self) -> LoopRun:
        if self._phase != "new":
            raise RuntimeError("a run is monitored once; call monitor again for another one")
        if self._settings.resume_from is not None:
            saved = self._state.load(self._settings.resume_from)
            self.step, self.epoch = int(saved.get("step", 0)), int(saved.get("epoch", 0))
            self._monitor.resume(saved, self.step)
        self._phase = "open"
        self._monitor.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._phase = "closed"
        if error is None:
            self._monitor.close("finished")
        elif isinstance(error, KeyboardInterrupt):
            self._monitor.close("finished", "interrupted with Ctrl-C")
        else:
            detail = f"{type(error).__name__}: {error}".removesuffix(": ")
            self._monitor.close("failed", detail)

    @property
    def connection_file(self) -> Path | None:
        """The connection file while the run can be monitored, else None."""
        session = self._monitor.session
        return None if session is None else session.connection_file

    @property
    def optimizers(self) -> list[Any]:
        """The optimizers that train the model. Set it after replacing one: to one or a list."""
        return self._state.optimizers

    @optimizers.setter
    def optimizers(self, optimizers: Any) -> None:
        self._state.optimizers = optimizers

    def steer(self, body: RequestBody, *, dry_run: bool = False) -> PendingRequest:
        """Submit an edit or a command from inside the training process, in any thread.

        It is handled before the next batch; then the returned object holds the reply.

        Args:
            body: an edit, such as `RemoveFilters`, or a command, such as `ControlRun`.
            dry_run: plan the edit without applying it.

        Raises:
            EditRefusedError: the loop is not monitored.
        """
        return self._monitor.submit(body, dry_run=dry_run)

    def save_checkpoint(self, path: str | Path) -> None:
        """Save the model, its edits, the optimizers, the other objects and the run.

        ``monitor(resume_from=path)`` and `load_edited` read the file. Call it between batches.
        """
        self._state.save(Path(path), self._describe())

    def _describe(self) -> dict[str, Any]:
        return {"step": self.step, "epoch": self.epoch, **self._monitor.run_state()}

    def _stop(self) -> None:
        self.should_stop = True

    # ------------------------------------------------------------------ epochs and batches

    def epochs(self, count: int) -> Iterator[int]:
        """Iterate over the numbers of the epochs, from the present one to ``count`` - 1.

        Args:
            count: the number of all epochs of the training. A resumed training begins with the
                epoch in which the checkpoint was saved.
        """
        self._max_epochs, self._is_in_epochs = count, True
        try:
            for epoch in range(self.epoch, count):
                if self.should_stop:
                    return
                self._begin_epoch(epoch)
                yield epoch
        finally:
            self._is_in_epochs = False

    def _begin_epoch(self, epoch: int) -> None:
        self.epoch, self._batch_index, self._has_epoch = epoch, 0, True

    def batches(self, loader: Iterable[T]) -> Iterator[T]:
        """Iterate over the batches of a loader. Each pass of the loop's body trains one batch.

        Outside of `epochs`, each call begins the next epoch. A pass that ends with ``break`` is
        published if it has called `log` with a loss.

        Args:
            loader: a DataLoader, or any other iterable.
        """
        if not self._is_in_epochs:
            self._begin_epoch(self.epoch + 1 if self._has_epoch else self.epoch)
        self._monitor.loader = loader
        self._batches_per_epoch = _length(loader)
        for batch in loader:
            if self.should_stop:
                return
            with self.batch(batch):
                yield batch

    @contextmanager
    def batch(self, batch: Any, *, can_edit: bool = True) -> Iterator[None]:
        """Train one batch inside: forward, backward and the step of the optimizer.

        Requests are handled before it, and the loop waits here while the run is paused.

        Args:
            batch: what the loop trains on: tensors in tuples, lists, dicts or dataclasses, on any
                device.
            can_edit: False while gradients of earlier batches are accumulated, so that edits wait.

        Raises:
            RuntimeError: the run is not open, or the previous batch has not ended.
        """
        if self._phase != "open" or self._is_in_batch:
            problem = (
                "the previous batch has not ended"
                if self._is_in_batch
                else ("the run is not open; use `with revacnn_lightning.monitor(...) as run:`")
            )
            raise RuntimeError(f"cannot begin a batch: {problem}")
        window = self._settings.accumulate_grad_batches
        starts_window = self._batch_index % window == 0
        self._loss = None
        recording = self._monitor.begin_batch(
            batch, self._progress(), can_edit=can_edit and starts_window
        )
        self._is_in_batch = True
        try:
            with recording or nullcontext(_ignore) as add_result:
                yield
                add_result(self._loss)
        except GeneratorExit:  # the loop was left by break, perhaps before it has trained the batch
            if self._loss is not None:
                self._end_batch(1 / window)
            raise
        else:
            self._end_batch(1 / window)
        finally:
            self._is_in_batch, self._loss = False, None
            self._monitor.release_batch()

    def _end_batch(self, loss_factor: float) -> None:
        loss = self._loss.detach() if isinstance(self._loss, Tensor) else self._loss
        self.step += 1
        self._batch_index += 1
        self._monitor.end_batch(loss, self._metrics, loss_factor)

    def _progress(self) -> Progress:
        return Progress(
            self.step, self.epoch, self._batch_index, self._batches_per_epoch, self._max_epochs
        )

    def log(self, *, loss: Tensor | float | None = None, **metrics: Tensor | float) -> None:
        """Publish the loss of this batch, and metrics, which stay until they are logged again.

        Args:
            loss: as it is passed to ``backward``, without the scale of mixed precision. From the
                tensor itself, the loss of edits is predicted; a number is only shown.
            metrics: numbers by name, such as ``accuracy=0.9`` or ``**{"val/loss": loss}``. Tensors
                are read later, so that the loop does not wait for a GPU.

        Raises:
            TypeError: a value is not a single number.
        """
        for name, value in (("loss", loss), *metrics.items()):
            if not is_scalar(value) and not (name == "loss" and value is None):
                found = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else "of type"
                kind = "" if isinstance(value, Tensor) else f" {type(value).__name__}"
                raise TypeError(f"{name} must be a single number, and is {found}{kind}")
        self._loss = self._loss if loss is None else loss
        self._metrics.update(
            (name, value.detach() if isinstance(value, Tensor) else value)
            for name, value in metrics.items()
        )

    def respond(self) -> None:
        """Handle requests that need no training batch. Call it in a long validation."""
        self._monitor.respond()


def _ignore(output: Any) -> None:
    """Take what a step returns that is not recorded."""


def _length(loader: Any) -> int:
    """Return the number of batches; 0 if it is unknown."""
    try:
        return len(loader)
    except TypeError:
        return 0
