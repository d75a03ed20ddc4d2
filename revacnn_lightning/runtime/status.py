"""What a run tells of itself beside its statistics: how the network is built, and what it does."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal

from torch import nn
from torch.optim import Optimizer

from revacnn_lightning.protocol.messages import Message, Status, Structure
from revacnn_lightning.runtime.controls import groups_of
from revacnn_lightning.runtime.structure import Topology, build_structure
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.telemetry import Recorder

__all__ = ["State", "StatusPublisher"]

HEARTBEAT_SECONDS = 1.0

State = Literal["training", "validating", "paused", "finished", "failed"]


class StatusPublisher:
    """Publishes the run's structure on every change, and its state at least once a second.

    Args:
        run: its id.
        model: whose structure it is.
        editor: knows the filters, and which can be edited.
        recorder: knows the order of the layers, and what each activation sums.
        optimizers: those of the run now.
        publish: sends a message to all viewers.

    Attributes:
        step: the training batch, counted from 0.
        version: of the published structure.
        structure: what was published last; None until a batch has shown the forward order.
        state: what was published last.
    """

    def __init__(
        self,
        run: str,
        model: nn.Module,
        editor: Editor,
        recorder: Recorder,
        *,
        optimizers: Callable[[], Sequence[Optimizer]],
        publish: Callable[[Message], None],
    ) -> None:
        self.step = 0
        self.version = 0
        self.structure: Structure | None = None
        self.state: State = "training"
        self._run = run
        self._model = model
        self._editor = editor
        self._recorder = recorder
        self._optimizers = optimizers
        self._publish = publish
        self._topology = Topology(version=-1)
        self._edited = False  # since the last batch
        self._last_beat = 0.0

    # ------------------------------------------------------------------ the structure

    def edited(self) -> None:
        """An edit has changed the structure. It was traced: what feeds what is told at once."""
        self._edited = True
        self.version += 1 if self.structure is not None else 0
        if self._topology.version >= 0 and self._editor.is_traced:
            nothing = ForwardProbe(forwards=())
            self._topology = Topology.traced(self.version, self._editor, lambda: nothing)
        self._publish_structure()

    def follow_order(self) -> bool:
        """A batch has ended: the forward order is known after the first, and may change later.

        Returns:
            Whether the structure is another now.
        """
        known = [] if self.structure is None else [layer.name for layer in self.structure.layers]
        edited, self._edited = self._edited, False
        if self.structure is None or known != list(self._recorder.layers):
            self._changed()
            return True
        if edited:
            self._publish_structure()  # only now it is known again what each activation sums
        return False

    def learn_topology(self, probe: Callable[[], ForwardProbe]) -> None:
        """Trace which conv feeds which, and what cannot be edited, for the page to show."""
        if self.structure is not None and self._topology.version != self.version:
            self._topology = Topology.traced(self.version, self._editor, probe)
            self._publish_structure()

    def _changed(self) -> None:
        self.version += 1 if self.structure is not None else 0
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

    # ------------------------------------------------------------------ the state

    def beat_if_due(self, state: State) -> None:
        """Say that the run lives and what it does: on every change, else once a second."""
        if state != self.state or time.monotonic() - self._last_beat > HEARTBEAT_SECONDS:
            self.beat(state)

    def beat(self, state: State, detail: str = "") -> None:
        """Say so now."""
        self.state = state
        self._last_beat = time.monotonic()
        self._publish(self._status(detail))

    def greeting(self) -> list[Message]:
        """What a viewer that comes new has to know."""
        known: list[Message] = [] if self.structure is None else [self.structure]
        return [*known, self._status()]

    def _status(self, detail: str = "") -> Status:
        return Status(
            run=self._run,
            state=self.state,
            step=self.step,
            version=self.version,
            time=time.time(),
            detail=detail,
            parameter_groups=groups_of(self._optimizers()),
        )
