"""Publish the structure of the network and the state of the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from torch import nn
from torch.optim import Optimizer

from revacnn_lightning.protocol.alerts import Alert
from revacnn_lightning.protocol.automatic_state import AutomaticState
from revacnn_lightning.protocol.messages import (
    GradientClipping,
    Message,
    ParameterGroup,
    Status,
    Structure,
    TrainingState,
)
from revacnn_lightning.protocol.trial_state import TrialState
from revacnn_lightning.runtime.batch import make_probe_without_forwards
from revacnn_lightning.runtime.heartbeat import HeartbeatSchedule
from revacnn_lightning.runtime.hyperparameters import describe_parameter_groups
from revacnn_lightning.runtime.structure import TracedTopology, build_structure
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.telemetry import Recorder

__all__ = ["StructureAndStatusPublisher"]


class StructureAndStatusPublisher:
    """Publishes the structure on every change, and the state of the run at least once a second.

    Args:
        run: id of the run.
        model: the network.
        editor: knows the ids of the filters, and which can be edited.
        recorder: knows the order of the layers, and what each activation sums.
        get_optimizers: returns the current optimizers of the run.
        get_group_notes: returns what to say of parameter groups, by (optimizer, group).
        get_recording: returns the name of the file to which the run is being recorded.
        get_alerts: returns the last alerts.
        get_automatic: returns what the run does by itself.
        get_compilations: returns how often torch.compile has compiled, and for how many seconds.
        get_trial: returns the trial of edits that was started last.
        get_clipping: returns how the training clips gradients; None if that is not known.
        publish: sends a message to all viewers.

    Attributes:
        step: the current training batch, counted from 0.
        version: version of the published structure.
        structure: the last published structure; None until a batch has shown the forward order.
    """

    def __init__(
        self,
        run: str,
        model: nn.Module,
        editor: Editor,
        recorder: Recorder,
        *,
        get_optimizers: Callable[[], Sequence[Optimizer]],
        get_group_notes: Callable[[], Mapping[tuple[int, int], str]] = dict,
        get_recording: Callable[[], str] = str,
        get_alerts: Callable[[], list[Alert]] = list,
        get_automatic: Callable[[], AutomaticState] = AutomaticState,
        get_compilations: Callable[[], tuple[int, float]] = lambda: (0, 0.0),
        get_trial: Callable[[], TrialState | None] = lambda: None,
        get_clipping: Callable[[], GradientClipping | None] = lambda: None,
        publish: Callable[[Message], None],
    ) -> None:
        self.step = 0
        self.version = 0
        self.structure: Structure | None = None
        self._run = run
        self._model = model
        self._editor = editor
        self._recorder = recorder
        self._get_optimizers = get_optimizers
        self._get_group_notes = get_group_notes
        self._get_recording = get_recording
        self._get_alerts = get_alerts
        self._get_automatic = get_automatic
        self._get_compilations = get_compilations
        self._get_trial = get_trial
        self._get_clipping = get_clipping
        self._publish = publish
        self._topology = TracedTopology(version=-1)
        self._was_edited = False  # since the last batch
        self._order_version = -1  # of the recorder, in the last batch
        self._heartbeat = HeartbeatSchedule()
        self._detail = ""
        self._groups: list[ParameterGroup] = []

    # ------------------------------------------------------------------ structure

    def publish_edit(self) -> None:
        """Publish the structure after an edit, with its topology: the edit has traced it."""
        self._was_edited = True
        self.version += 1 if self.structure is not None else 0
        if self._topology.version >= 0 and self._editor.is_traced:
            self._topology = TracedTopology.trace(
                self.version, self._editor, make_probe_without_forwards
            )
        self._publish_structure()

    def publish_order_if_changed(self) -> bool:
        """Publish the structure if the batch that just ended has shown another forward order.

        The order is known after the first batch, and may change later.

        Returns:
            Whether the structure has changed.
        """
        was_edited, self._was_edited = self._was_edited, False
        if self.structure is None or self._has_order_changed(self.structure):
            self.version += 1 if self.structure is not None else 0
            self._publish_structure()
            return True
        if was_edited:
            self._publish_structure()  # this batch has shown what each activation sums now
        return False

    def _has_order_changed(self, structure: Structure) -> bool:
        """Return whether the last batch has shown another forward order than the structure."""
        previous, self._order_version = self._order_version, self._recorder.order_version
        if previous == self._order_version:
            return False
        return [layer.name for layer in structure.layers] != self._recorder.layers

    @property
    def is_topology_outdated(self) -> bool:
        """Whether the published edges and refusals are not those of the present network."""
        return self.structure is not None and self._topology.version != self.version

    def publish_topology_if_outdated(self, make_probe: Callable[[], ForwardProbe]) -> None:
        """Trace the network and publish its edges and refusals, unless they are known."""
        if self.is_topology_outdated:
            self._topology = TracedTopology.trace(self.version, self._editor, make_probe)
            self._publish_structure()

    def _publish_structure(self) -> None:
        self.structure = build_structure(
            run=self._run,
            version=self.version,
            step=self.step,
            model=self._model,
            recorder=self._recorder,
            editor=self._editor,
            topology=self._topology,
        )
        self._publish(self.structure)

    # ------------------------------------------------------------------ state

    @property
    def state(self) -> TrainingState:
        """The last published state."""
        return self._heartbeat.state

    def send_heartbeat_if_due(self, state: TrainingState, detail: str = "") -> None:
        """Publish the state if it has changed or if the last heartbeat was a second ago."""
        if self._heartbeat.is_due(state):
            self.send_heartbeat(state, detail)

    def send_heartbeat(self, state: TrainingState, detail: str = "") -> None:
        """Publish the state now."""
        self._heartbeat.record(state)
        self._detail = detail
        self._publish(self._build_status())

    def repeat_heartbeat(self) -> None:
        """Publish the last state now, with the present parameter groups."""
        self.send_heartbeat(self.state, self._detail)

    def initial_messages(self) -> list[Message]:
        """Return the messages that a newly attached viewer needs."""
        known: list[Message] = [] if self.structure is None else [self.structure]
        return [*known, self._build_status()]

    def _build_status(self) -> Status:
        compilations, compile_seconds = self._get_compilations()
        trial = self._get_trial()
        if trial is None or trial.stage != "training":  # else they are those of a twin
            self._groups = describe_parameter_groups(
                self._get_optimizers(), self._get_group_notes()
            )
        return Status(
            run=self._run,
            state=self.state,
            step=self.step,
            version=self.version,
            time=time.time(),
            detail=self._detail,
            parameter_groups=self._groups,
            alerts=self._get_alerts(),
            recording=self._get_recording(),
            automatic=self._get_automatic(),
            compilations=compilations,
            compile_seconds=compile_seconds,
            trial=trial,
            gradient_clipping=self._get_clipping(),
        )
