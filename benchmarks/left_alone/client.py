"""Callbacks that attach a real client to a training, open a layer and a filter, and edit."""

from __future__ import annotations

import threading
import time

import pytorch_lightning as pl

from revacnn_lightning import (
    ControlRun,
    EditRefusedError,
    ReVACNN,
    RevacnnError,
    Run,
    attach,
)
from revacnn_lightning.protocol.inspections import FilterInspection, ImagePass, LayerDetail
from revacnn_lightning.protocol.messages import Structure
from revacnn_lightning.protocol.requests import (
    InspectClass,
    InspectClasses,
    InspectEvidence,
    InspectFilter,
    InspectImage,
    InspectLayer,
    InspectPrices,
    PaintImage,
    Patch,
)

__all__ = ["ClientAttachment"]

REPLY_SECONDS = 30.0
REFRESH_SECONDS = 0.25  # a viewer repeats what it shows


class ClientAttachment(pl.Callback):
    """Pauses every fit before its second batch until a client in a thread has opened a layer.

    It must stand before ReVACNN in the trainer's list.

    Attributes:
        run: The client's view of the run.
        layer: The first layer that can be edited, else the first.
        endpoints: Of all runs so far.
        problems: What went wrong on the client's side.
        received: How many messages of each type have arrived.
    """

    def __init__(self, revacnn: ReVACNN, observable: bool = True, layer: str = "") -> None:
        self.revacnn = revacnn
        self.observable = observable
        self.run: Run | None = None
        self.layer = ""
        self._chosen = layer
        self.endpoints: list[str] = []
        self.problems: list[str] = []
        self.received: dict[str, int] = {}
        self._batch = 0
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    def __getstate__(self) -> dict[str, object]:
        """Return nothing: workers of a data loader may get a copy with the trainer."""
        return {}

    # ---------------------------------------------------------------- the training's side

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._batch = 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        self._batch += 1
        if self._batch != 2 or self._thread is not None:
            return
        try:
            self.revacnn.steer(ControlRun("pause"))
        except EditRefusedError as error:
            self.problems.append(f"no run: {error}")
            return
        self._ended.clear()
        self._thread = threading.Thread(target=self._work, name="client", daemon=True)
        self._thread.start()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.detach()

    def on_exception(self, trainer, pl_module, exception) -> None:  # type: ignore[no-untyped-def]
        self.detach()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.detach()

    def detach(self) -> None:
        """End the client."""
        self._ended.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(REPLY_SECONDS)

    # ---------------------------------------------------------------- the client's side

    def _work(self) -> None:
        try:
            with attach(self.revacnn.connection_file, timeout=REPLY_SECONDS) as self.run:
                run = self.run
                self.endpoints += [
                    run.connection.telemetry_endpoint, run.connection.request_endpoint
                ]  # fmt: skip
                try:
                    self._open(run)
                finally:
                    run.command(ControlRun("resume"), timeout=REPLY_SECONDS)
                self._view(run)
        except (RevacnnError, OSError, AssertionError) as error:
            self.problems.append(f"client: {type(error).__name__}: {error}")
            self._resume_from_inside()

    def _open(self, run: Run) -> None:
        """Open a layer and a filter, as soon as the structure shows which can be edited."""
        deadline = time.monotonic() + 1.0  # refusals arrive a moment after the structure
        while time.monotonic() < deadline and run.structure is not None and not run.structure.edges:
            self._count(run)
            if any(layer.edit_refusal for layer in run.structure.layers):
                break
            time.sleep(0.02)
        layers = [] if run.structure is None else run.structure.layers
        if not layers:
            if self.observable:
                self.problems.append("client: the structure has no layers")
            return
        editable = [layer.name for layer in layers if not layer.edit_refusal]
        self.layer = self._chosen or [*editable, layers[0].name][0]
        run.command(InspectLayer(self.layer, updates_per_second=100.0), timeout=REPLY_SECONDS)
        run.command(InspectFilter(self.layer, 0, ascent=1), timeout=REPLY_SECONDS)
        run.command(InspectImage(), timeout=REPLY_SECONDS)
        run.command(InspectPrices(), timeout=REPLY_SECONDS)
        run.command(InspectEvidence(), timeout=REPLY_SECONDS)
        run.command(InspectClasses(self.layer), timeout=REPLY_SECONDS)
        run.command(InspectClass(0), timeout=REPLY_SECONDS)

    def _view(self, run: Run) -> None:
        """Receive everything until the training ends; repeat what is open, as a viewer does."""
        due = time.monotonic() + REFRESH_SECONDS
        while not self._ended.is_set():
            self._count(run)
            if self.layer and time.monotonic() > due:
                due = time.monotonic() + REFRESH_SECONDS
                run.request(InspectLayer(self.layer, updates_per_second=100.0))
                run.request(InspectFilter(self.layer, 0, ascent=1))
                run.request(PaintImage(-1, None, [Patch(0, 0, 0.5, 0.5)]))  # refused: no image
                run.request(InspectImage(-1))
                run.request(InspectImage())
                run.request(InspectPrices())
                run.request(InspectEvidence())
                run.request(InspectClasses(self.layer))
                run.request(InspectClass(0))
            time.sleep(0.005)
        self._count(run)

    def _count(self, run: Run) -> None:
        for message in run.poll():
            name = type(message).__name__
            self.received[name] = self.received.get(name, 0) + 1

    def _resume_from_inside(self) -> None:
        try:
            self.revacnn.steer(ControlRun("resume"))
        except EditRefusedError:
            return  # the run has ended

    def missing_messages(self) -> str:
        """Return what a client expects and has not received, in words."""
        if not self.observable or self.problems:
            return ""
        expected = (Structure, LayerDetail, FilterInspection, ImagePass)
        names = [kind.__name__ for kind in expected if kind.__name__ not in self.received]
        return f"never received: {', '.join(names)}" if names else ""
