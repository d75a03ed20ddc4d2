"""A run, as scripts and notebooks use it.

::

    from revacnn_lightning import RemoveFilters, attach

    with attach() as run:                         # the newest run on this machine
        for batch in run.batches():               # until the run has ended
            silent = (batch["conv2"]["activation"] == 0).nonzero()[0]
            if batch.step == 500 and len(silent):
                run.apply(RemoveFilters("conv2", silent), version=batch.version)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Literal, TypeVar

from revacnn_lightning.client import run_html
from revacnn_lightning.client.batch import Batch
from revacnn_lightning.client.batch_stream import BatchStream
from revacnn_lightning.client.run_automatic import RunPruningAndPolicy
from revacnn_lightning.client.run_effects import RunEffects
from revacnn_lightning.client.run_inspections import RunInspections
from revacnn_lightning.client.run_keys import RunKeys
from revacnn_lightning.client.run_trials import RunTrials
from revacnn_lightning.client.run_verdicts import RunVerdicts
from revacnn_lightning.protocol.messages import Applied, Done, Status
from revacnn_lightning.protocol.requests import (
    ControlRun,
    Redo,
    SetGradientClipping,
    SetHyperparameter,
    StartRecording,
    StopRecording,
    Undo,
)

if TYPE_CHECKING:
    from revacnn_lightning.client.embedded_viewer import EmbeddedViewer
    from revacnn_lightning.client.svg import Figure

__all__ = ["Run"]

Result = TypeVar("Result")

LINGER_SECONDS = 1.0  # that closing grants the last requests to leave


class Run(RunPruningAndPolicy, RunEffects, RunInspections, RunKeys, RunTrials, RunVerdicts):
    """A training run, seen from another process. `attach` returns one.

    Methods that send a request wait for the reply. They raise `RunEndedError` immediately if the
    run has ended, `EditRefusedError` if the run refuses, and `RequestTimeoutError` after
    ``timeout`` seconds.

    Attributes:
        connection: the run's address and key.
        structure: the last received structure of the network; None before the first one.
        status: the last received status; None before the first one.
        batch: the statistics of the last received training batch; None before the first one.
        snapshot: the message that they come from.
        access: the key of this client, and what it may do; see `can_steer`.
        last_message_time: when the last message arrived (`time.monotonic()`); before the first
            message, when this object was created.

    Raises:
        ConnectionFileError: the address or the key in ``connection`` is invalid.
    """

    _viewer: EmbeddedViewer | None = None

    # ------------------------------------------------------------------ monitoring

    def batches(self, *, newest_only: bool = False, timeout: float | None = None) -> BatchStream:
        """Return the training batches as they arrive, for ``for`` and ``async for``.

        The loop ends when the run has ended. While no batch arrives, it waits: training may be
        validating or paused. Batches that arrived since the last loop come first; a run that is
        faster than the loop drops some.

        Examples:
            >>> for batch in run.batches(newest_only=True):
            ...     gradient = batch["conv1"]["gradient"]  # one value per filter
            ...     if batch.step > 10:
            ...         break
            >>> gradient.shape
            (4,)

        Args:
            newest_only: skip all but the newest batch that has arrived. Use this for decisions, so
                that they refer to the present.
            timeout: seconds to wait for a batch; None: no limit.

        Raises in the loop:
            RequestTimeoutError: no batch arrived in time, or the run is unreachable.
        """
        return BatchStream(self, newest_only=newest_only, timeout=timeout)

    def wait_for(
        self, condition: Callable[[Run], Result | None], *, timeout: float = float("inf")
    ) -> Result:
        """Return the first true result of ``condition(run)``, called after each message of the run.

        ::

            run.wait_for(lambda run: run.batch and run.batch.epoch == 3)
            run.wait_for(lambda run: run.status.state == "paused", timeout=60)

        Raises:
            RunEndedError: the run ends, or has ended, and the condition is still false.
            RequestTimeoutError: the time is over, or the run is unreachable.
        """

        def find() -> Result | None:
            if result := condition(self):
                return result
            for message in self._receive():
                self._unread.add([message])
                if result := condition(self):
                    return result
            return None

        def why() -> str:
            if self._is_unreachable():
                return self._why_unreachable()
            return (
                f"run {self.connection.run} has not reached the condition within {timeout:.3g} s; "
                "it may do so later: check its status"
            )

        return self._wait_until(find, timeout, why)

    # ------------------------------------------------------------------ steering

    def pause(self) -> None:
        """Wait before the next batch. Requests are handled during a pause."""
        self.command(ControlRun("pause"))

    def resume(self) -> None:
        """Continue a paused training."""
        self.command(ControlRun("resume"))

    def train(self, batches: int | None = None, *, timeout: float = 3600.0) -> int:
        """Train this many batches, or to the end of the epoch, and wait until the run has paused.

        A paused run continues, and a running one pauses afterwards. `resume` lets it train on.

        Args:
            batches: number of training batches; None: to the end of the current epoch, or through
                the next one if the run is paused between two epochs.
            timeout: seconds to wait.

        Returns:
            The training batch before which the run has paused, counted from the start of fit.

        Raises as `apply` does: `RunEndedError` also if training ends before it would pause, and
        `RequestTimeoutError` if it has not paused in time. It still pauses later.
        """
        deadline = time.monotonic() + timeout
        step = ControlRun("finish_epoch") if batches is None else ControlRun("step", batches)
        reply = self._execute(step, timeout)
        assert isinstance(reply, Done)

        def pause(run: Run) -> Status | None:
            if run.status is None or run.status.state != "paused":
                return None
            # An earlier status may arrive after the reply, on the other socket.
            return run.status if run.status.step > reply.step else None

        return self.wait_for(pause, timeout=deadline - time.monotonic()).step

    def save_checkpoint(self) -> str:
        """Save a checkpoint; return what was saved, in words."""
        return self.command(ControlRun("checkpoint"))

    def stop(self) -> str:
        """Save a checkpoint and end training; return what was saved, in words."""
        return self.command(ControlRun("stop"))

    def start_recording(self, file: str = "") -> str:
        """Record every batch to a file, where the training runs; return its path, in words.

        Args:
            file: a name without a folder, because the training has chosen the folder; "" for a new
                name.
        """
        return self.command(StartRecording(file))

    def stop_recording(self) -> str:
        """End the recording; return what was recorded, in words."""
        return self.command(StopRecording())

    def undo(self, count: int = 1) -> Applied:
        """Undo the last edits that are not undone yet."""
        return self.apply(Undo(count))

    def redo(self, count: int = 1) -> Applied:
        """Redo the last undone edits."""
        return self.apply(Redo(count))

    def set_learning_rate(self, value: float, *, optimizer: int = 0, group: int = 0) -> str:
        """Set the learning rate of a parameter group; later rates of a schedule are scaled."""
        return self.command(SetHyperparameter(optimizer, group, "lr", value))

    def set_weight_decay(self, value: float, *, optimizer: int = 0, group: int = 0) -> str:
        """Set the weight decay of a parameter group."""
        return self.command(SetHyperparameter(optimizer, group, "weight_decay", value))

    def set_gradient_clipping(
        self, value: float | None, algorithm: Literal["norm", "value"] = "norm"
    ) -> str:
        """Clip the gradients before each step; with None or 0, stop clipping them.

        Args:
            value: the largest norm of all gradients of an optimizer together, or the largest
                absolute value of a component.
            algorithm: which of the two.
        """
        return self.command(SetGradientClipping(value, algorithm))

    # ------------------------------------------------------------------ notebooks

    def figure(self, layer: str | None = None, *, timeout: float = 60.0) -> Figure:
        """Return a static figure: of a layer's filters, or of the whole network.

        A notebook shows it; ``figure.save("conv2.svg")`` writes it.
        """
        from revacnn_lightning.client import layer_figure, network_figure

        batch = self.wait_for(_batch_to_draw, timeout=timeout)
        if layer is None:
            return network_figure.draw_network_figure(batch)
        return layer_figure.draw_layer_filters(self.detail(layer, timeout=timeout), batch)

    def show(self, *, height: int = 800) -> EmbeddedViewer:
        """Show the viewer of this run below the notebook's cell, until `close`.

        Raises:
            RevacnnError: the viewer did not start.
        """
        from revacnn_lightning.client.embedded_viewer import EmbeddedViewer

        if self._viewer is None or not self._viewer.is_running():
            self._viewer = EmbeddedViewer.start(self.connection)
        self._viewer.set_height(height)
        return self._viewer

    def close(self, linger: float = LINGER_SECONDS) -> None:
        """Detach. This has no effect on the training.

        Args:
            linger: seconds to wait at most until the requests are sent, if the run has not ended.
        """
        if self._viewer is not None:
            self._viewer.close()
        super().close(0.0 if self.has_ended() else linger)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        name = self.connection.name or self.connection.model or "run"
        return f"<Run {self.connection.run} of {name}: {run_html.describe_run_state(self)}>"

    def _repr_html_(self) -> str:
        return run_html.run_html(self)


def _batch_to_draw(run: Run) -> Batch | None:
    """Return the last batch; if a run trains none at present, one without statistics."""
    if run.batch is not None or run.structure is None or run.status is None:
        return run.batch
    is_training = run.status.state == "training"
    return None if is_training else Batch.without_statistics(run.structure, run.status.step)
