"""Submits edits of a training, and judges each by the module before and after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from torch.utils._pytree import tree_leaves

from benchmarks.left_alone.client import ClientAttachment
from benchmarks.left_alone.exactness import (
    ModuleSnapshot,
    eval_outputs,
    group_faults,
    is_weight_norm_gain,
    masked_outputs,
    names_part_of_training,
    output_fault,
    removed_entries,
    snapshot_module,
    state_faults,
)
from benchmarks.left_alone.registry import Case
from revacnn_lightning import (
    AddFilters,
    EditRefusedError,
    InsertLayer,
    RemoveFilters,
    ReVACNN,
    Undo,
)
from revacnn_lightning.protocol.messages import Applied, Refused
from revacnn_lightning.protocol.requests import Edit
from revacnn_lightning.runtime.request_queue import PendingRequest

__all__ = ["EditScript", "JudgeEditsAfter", "SubmitEditsBefore"]

# Views before edits, by script. As attributes of a callback they would be copies of the model,
# which the edits would have to keep up to date.
_VIEWS: dict[int, ModuleSnapshot] = {}
FIRST_BATCH = 3  # counted from 1; the client attaches before the second


def edits_for_layer(layer: str) -> list[list[Edit]]:
    """Return edits of a layer, in groups. Those of a group are submitted at one boundary."""
    return [
        [AddFilters(layer, 2)],
        [RemoveFilters(layer, [0])],
        [InsertLayer(layer), Undo()],
        [InsertLayer(layer)],
        [Undo()],
    ]


class EditScript:
    """Submits the edits of every fit, one group after each batch, and judges them.

    Attributes:
        faults: What went wrong.
        refusals: Reasons of refused edits.
        exact: The number of edits that were applied and are exact.
        unchecked: Why an output was not compared; empty if all were.
    """

    def __init__(self, case: Case, revacnn: ReVACNN, client: ClientAttachment) -> None:
        self.revacnn, self.client = revacnn, client
        self.faults: list[str] = []
        self.refusals: list[str] = []
        self.exact = 0
        self.unchecked = ""
        self._output = case.output or _output_of_images
        self._todo: list[list[Edit]] = []
        self._pending: list[tuple[Edit, PendingRequest]] = []
        self._batch = 0
        self._has_begun = False
        self._inserted = False

    def __getstate__(self) -> dict[str, object]:
        """Return nothing: workers of a data loader may get a copy with the trainer."""
        return {}

    def restart_script(self) -> None:
        """Start the script again."""
        self._todo, self._pending, self._batch, self._has_begun = [], [], 0, False
        _VIEWS.pop(id(self), None)

    def submit_next_edits(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any
    ) -> None:
        """Submit the next group, if the last one was handled."""
        self._batch += 1
        # A batch may come before the pause in which the client chooses a layer.
        if self._batch >= FIRST_BATCH and self.client.layer and not self._has_begun:
            self._todo, self._has_begun = edits_for_layer(self.client.layer), True
        if self._todo and not self._pending:
            self._submit(self._todo.pop(0))
        if self._pending:
            removes = isinstance(self._pending[0][0], RemoveFilters)
            view = snapshot_module(trainer, module, self._outputs(module, batch), removes)
            _VIEWS[id(self)] = view

    def judge_handled_edits(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any
    ) -> None:
        """Judge the group, if it was handled at this boundary."""
        before, pending = _VIEWS.get(id(self)), self._pending
        if before is None or not pending or any(each.reply is None for _, each in pending):
            return
        del _VIEWS[id(self)]
        self._pending = []
        now = snapshot_module(trainer, module, self._outputs(module, batch))
        refused = [(edit, each.reply) for edit, each in pending if isinstance(each.reply, Refused)]
        for edit, reply in refused:
            self._judge_refusal(edit, reply.reason, trainer, module)
        if isinstance(pending[0][0], InsertLayer):
            self._inserted = isinstance(pending[0][1].reply, Applied)
        run = lambda subject: self._output(subject, batch)  # noqa: E731
        faults = group_faults(before, now) + self._compare(pending, before, now, run)
        names = "+".join(type(edit).__name__ for edit, _ in pending)
        self.faults += [f"{names}: {fault}" for fault in faults[:2]]
        if not faults:
            self.exact += len(pending) - len(refused)

    def note_missing_edits(self) -> None:
        """Note what could not be submitted."""
        if self.client.layer and not self.exact and not self.refusals and not self.faults:
            self.faults.append("no edit was handled")

    # ------------------------------------------------------------------ parts

    def _submit(self, group: list[Edit]) -> None:
        if isinstance(group[0], Undo) and not self._inserted:
            return
        for edit in group:
            try:
                self._pending.append((edit, self.revacnn.steer(edit)))
            except EditRefusedError as error:
                self.faults.append(f"{type(edit).__name__}: {error}")

    def _compare(
        self,
        pending: list[tuple[Edit, PendingRequest]],
        before: ModuleSnapshot,
        now: ModuleSnapshot,
        run: Callable[[Any], Any],
    ) -> list[str]:
        edit = pending[0][0]
        applied = [each.reply for _, each in pending if isinstance(each.reply, Applied)]
        if len(applied) != 1:  # none, or all of it was undone
            return state_faults(before, now)
        if isinstance(edit, Undo) or (len(pending) == 2 and pending[0][1].reply != applied[0]):
            return []  # what was undone has trained meanwhile
        expected = before.outputs
        if isinstance(edit, RemoveFilters):
            removed, fault = removed_entries(before, now)
            if fault:
                return [fault]
            if any("change as well" in note for note in applied[0].plan.notes):
                self.unchecked = "removal changes a normalization over channels"
                return []
            if any(is_weight_norm_gain(name) for name in before.parameters):
                self.unchecked = "removal rescales the gain of a weight norm"
                return []
            expected = None
            if before.twin is not None and before.outputs is not None:
                try:
                    expected = masked_outputs(before, removed, run)
                except Exception as error:  # noqa: BLE001 - of the case's own code; reported
                    self.unchecked = f"copy: {type(error).__name__}: {error}"
        if expected is None or now.outputs is None:
            self.unchecked = self.unchecked or "no copy of the module"
            return []
        return [fault] if (fault := output_fault(expected, now)) else []

    def _judge_refusal(self, edit: Edit, reason: str, trainer: Any, module: Any) -> None:
        name = type(edit).__name__
        self.refusals.append(f"{name}: {reason}")
        if reason.startswith("internal error"):
            self.faults.append(f"{name}: {reason}")
        elif "forward raised" in reason and not ("forward=" in reason or "after the" in reason):
            self.faults.append(f"{name}: the reason does not name ReVACNN(forward=...): {reason}")
        elif not isinstance(edit, Undo) and not names_part_of_training(reason, trainer, module):
            self.faults.append(f"{name}: the reason names no layer or holder: {reason}")

    def _outputs(self, module: pl.LightningModule, batch: Any) -> list[Tensor] | None:
        try:
            return eval_outputs(module, lambda subject: self._output(subject, batch))
        except Exception as error:  # noqa: BLE001 - of the case's own code; reported
            self.unchecked = f"{type(error).__name__}: {error}"
            return None


class SubmitEditsBefore(pl.Callback):
    """Stands before ReVACNN in the list of callbacks."""

    def __init__(self, script: EditScript) -> None:
        self.script = script

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.script.restart_script()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        self.script.submit_next_edits(trainer, pl_module, batch)


class JudgeEditsAfter(pl.Callback):
    """Stands after ReVACNN in the list of callbacks."""

    def __init__(self, script: EditScript) -> None:
        self.script = script

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        self.script.judge_handled_edits(trainer, pl_module, batch)


def _output_of_images(module: Any, batch: Any) -> Any:
    leaves = (t for t in tree_leaves(batch) if isinstance(t, Tensor) and t.is_floating_point())
    return module(next(t for t in leaves if t.ndim >= 3))
