"""Carries out what viewers ask for: edits of the network, and commands to the run."""

from __future__ import annotations

import logging
from collections.abc import Callable

from revacnn_lightning.errors import RevacnnError, StaleStructureError
from revacnn_lightning.protocol.messages import Applied, Done, Planned, Refused, Reply, Request
from revacnn_lightning.protocol.requests import (
    Command,
    ControlRun,
    Edit,
    InspectFilter,
    InspectLayer,
    SetHyperparameter,
)
from revacnn_lightning.runtime.controls import Controls, set_hyperparameter
from revacnn_lightning.runtime.filter_inspection import InspectionCollector
from revacnn_lightning.runtime.layer_details import LayerDetailCollector
from revacnn_lightning.runtime.pause import Pause
from revacnn_lightning.runtime.status import StatusPublisher
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.telemetry import Recorder

__all__ = ["RequestHandler"]

log = logging.getLogger(__name__)


class RequestHandler:
    """Answers the requests of one run; a fault in it costs the request, not the run.

    Args:
        run: the run's id.
        editor: changes the network.
        recorder: follows its changes.
        notices: tells them, and knows the batch.
        controls: saves and ends the training, and has its optimizers.
        pause: holds it.
        opened: the layers that are shown in detail.
        looking: the filters that are inspected.

    Attributes:
        cannot_edit: why this training cannot be changed at all; "" if it can.
    """

    def __init__(
        self,
        run: str,
        editor: Editor,
        recorder: Recorder,
        notices: StatusPublisher,
        controls: Controls,
        pause: Pause,
        opened: LayerDetailCollector,
        looking: InspectionCollector,
    ) -> None:
        self.edit_refusal = ""
        self._run = run
        self._editor = editor
        self._recorder = recorder
        self._notices = notices
        self._controls = controls
        self._pause = pause
        self._opened = opened
        self._looking = looking

    def answer(self, request: Request, probe: Callable[[], ForwardProbe]) -> Reply:
        """Plan or carry out one request, between two batches; ``probe`` is called if needed."""
        edit = request.body
        try:
            if isinstance(edit, InspectFilter):
                self._check_version(request.version)
            if isinstance(edit, Command):
                return Done(request.id, self._command(edit))
            if self.edit_refusal:
                raise RevacnnError(self.edit_refusal)
            self._check_version(request.version)
            if request.dry_run:
                return Planned(request.id, self._editor.plan(edit, probe()).summary())
            return self._apply(request.id, edit, probe())
        except RevacnnError as error:
            log.info("Refused %s: %s", edit, error)
            return Refused(request.id, str(error), self._notices.version)
        except Exception as error:  # a fault of ours costs the request, not the run
            log.warning("%s failed and was not carried out", edit, exc_info=True)
            reason = f"an internal error ({type(error).__name__}: {error}); see the training's log"
            return Refused(request.id, reason, self._notices.version)

    def is_easy(self, request: Request) -> bool:
        """Whether it can be answered in the middle of a validation, without a probe."""
        command = request.body
        if isinstance(command, ControlRun):  # a checkpoint should not be of half a validation
            return command.action not in ("checkpoint", "stop")
        return isinstance(command, Command) or (request.dry_run and self._editor.is_traced)

    def _apply(self, request_id: str, edit: Edit, probe: ForwardProbe) -> Applied:
        outcome = self._editor.apply(edit, probe)
        self._recorder.update_structure()
        self._looking.forget()
        self._notices.edited()
        log.info("%s, before batch %d", outcome.plan.summary().title, self._notices.step)
        return Applied(
            id=request_id,
            step=self._notices.step,
            version=self._notices.version,
            plan=outcome.plan.summary(),
            output_change=outcome.output_change,
            seconds=outcome.seconds,
        )

    def _command(self, command: Command) -> str:
        """Carry out a command; returns what was done, in words."""
        controls = self._controls
        if isinstance(command, InspectLayer):
            self._opened.watch(command)
            return ""
        if isinstance(command, InspectFilter):
            self._looking.inspect(command)
            return ""
        if isinstance(command, SetHyperparameter):
            done = set_hyperparameter(command, controls.optimizers, controls.schedulers)
            self._notices.beat(self._notices.state)
            return done
        if command.action in ("checkpoint", "stop"):
            path = controls.checkpoint(f"{self._run}-step={self._notices.step}")
            if command.action == "checkpoint":
                return f"Saved {path}"
            controls.stop()
            self._pause.take("resume")
            return f"Stopping; saved {path}"
        return self._pause.take(command.action)

    def _check_version(self, version: int | None) -> None:
        now = self._notices.version
        if version is not None and version != now:
            raise StaleStructureError(
                f"the network has changed since (the request is for structure {version}, now it is "
                f"{now}): look again, and repeat the request if it is still wanted"
            )
