"""Performs a plan inside a transaction and verifies the result with real forwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import torch
from torch import nn
from torch.optim import Optimizer

from revacnn_lightning.steering.execution import verification
from revacnn_lightning.steering.execution.executor import (
    UndoneEdit,
    UndoRecord,
    perform,
    revert,
)
from revacnn_lightning.steering.execution.reference_outputs import (
    expected_output,
    output_with_perturbed_weights,
    output_with_values,
)
from revacnn_lightning.steering.execution.tensor_edits import ChangeRecord
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.execution.value_edits import draw_again, random_entries
from revacnn_lightning.steering.planning.index_mapping import realign_columns
from revacnn_lightning.steering.planning.plan import (
    EditPlan,
    FilterMove,
    TensorEdit,
    ValueEdit,
    order_of,
)
from revacnn_lightning.steering.planning.resize_plan import filter_move
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.steering.tracing.forward_probe import ForwardProbe, evaluate, trace

__all__ = ["EditApplication", "PerformedEdit"]

# A fresh filter is active on about half of all inputs; after eight silent draws, assume that its
# input is silent.
MAX_DRAWS = 8


@dataclass
class PerformedEdit:
    """An edit that was performed and passed its verification.

    Attributes:
        plan: what was performed; its columns may differ from those of the requested plan.
        undo: what is needed to revert it; None for an undo or a redo.
        output_change: relative change of the model's output on the verifying batch.
        groups: the channel groups of the edited model.
        added: for an undo: what each undone edit had added, newest first.
        redone: for a redo: what is needed to revert each redone edit again, oldest first.
    """

    plan: EditPlan
    undo: UndoRecord | None
    output_change: float
    groups: ChannelGroups
    added: list[list[ChangeRecord]] = field(default_factory=list)
    redone: list[UndoRecord] = field(default_factory=list)


@dataclass
class EditApplication:
    """Performs and verifies edits of one model. If one fails, the rollback is up to ``tx``.

    Attributes:
        seed: of the random values that an edit draws. Each step of an edit uses a generator of its
            own, so training's random state is unaffected.
    """

    tx: Transaction
    model: nn.Module
    optimizers: Sequence[Optimizer]
    probe: ForwardProbe
    seed: int

    def perform(self, plan: EditPlan, groups: ChannelGroups) -> PerformedEdit:
        """Perform a plan. ``groups`` are the channel groups of the model before.

        Raises:
            EditFailedError: the verification failed.
            ForwardFailedError: the model's forward raised after the edit.
        """
        if plan.tensors:
            return self._resize(plan, groups)
        if plan.layers:
            return self._change_layers(plan)
        if plan.values:
            return self._change_values(plan, groups)
        return PerformedEdit(plan, UndoRecord(), 0.0, groups)  # freezing changes no tensor

    def revert(
        self, plan: EditPlan, performed: Sequence[tuple[EditPlan, UndoRecord]]
    ) -> PerformedEdit:
        """Revert edits, given oldest first. ``plan`` is that of the undo."""
        before = evaluate(self.model, self.probe)
        added = [
            revert(self.tx, self.model, done, self.optimizers, undo)
            for done, undo in reversed(performed)
        ]
        output = evaluate(self.model, self.probe)
        verification.check_shapes(output, before)
        groups = performed[0][1].groups_before or trace(self.model, self.probe)
        change = verification.relative_difference(output, before)
        return PerformedEdit(plan, None, change, groups, added=added)

    def redo(self, plan: EditPlan, undone: Sequence[UndoneEdit]) -> PerformedEdit:
        """Perform undone edits again, in this order. ``plan`` is that of the redo."""
        before = evaluate(self.model, self.probe)
        redone, removed = [], {}
        for edit in undone:
            undo = perform(
                self.tx, self.model, edit.plan, self.optimizers, self._generator(), edit.added
            )
            redone.append(undo)
            removed.update(undo.removed_layers)
        with verification.forbid_execution(removed):
            groups = trace(self.model, self.probe)
            output = evaluate(self.model, self.probe)
        verification.check_shapes(output, before)
        change = verification.relative_difference(output, before)
        return PerformedEdit(plan, None, change, groups, redone=redone)

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def _perform(self, plan: EditPlan) -> UndoRecord:
        return perform(self.tx, self.model, plan, self.optimizers, self._generator())

    def _resize(self, plan: EditPlan, groups: ChannelGroups) -> PerformedEdit:
        """Change values and sizes, realign the columns of consumers, and compare the output."""
        before = evaluate(self.model, self.probe)
        expected = expected_output(self.tx, self.model, plan, self.probe, before, self._generator())
        start = self.tx.size
        undo = self._perform(plan)
        after = trace(self.model, self.probe, _random_filters(plan))
        comparable = not _normalized_together(groups, plan)
        realigned = _realigned(groups, after, plan, strict=not comparable)
        if realigned is not plan:
            self.tx.rollback(keep=start)
            plan = realigned
            undo = self._perform(plan)
        after = self._draw_silent_filters_again(plan, after)
        output = evaluate(self.model, self.probe)
        if comparable:
            self._check_output(output, expected, after.rounding_unit)
        return PerformedEdit(plan, undo, verification.relative_difference(output, before), after)

    def _change_layers(self, plan: EditPlan) -> PerformedEdit:
        """Insert a block, which keeps the output, or remove a layer, which does not."""
        before = evaluate(self.model, self.probe)
        undo = self._perform(plan)
        with verification.forbid_execution(undo.removed_layers):
            after = trace(self.model, self.probe)
            output = evaluate(self.model, self.probe)
        verification.check_shapes(output, before)
        if all(layer.action == "insert" for layer in plan.layers):
            self._check_output(output, before, after.rounding_unit)
        return PerformedEdit(plan, undo, verification.relative_difference(output, before), after)

    def _change_values(self, plan: EditPlan, groups: ChannelGroups) -> PerformedEdit:
        before = evaluate(self.model, self.probe)
        is_read = not any(value.action == "zero" for value in plan.values)
        expected = None if is_read else self._output_without_values(plan)
        undo = self._perform(plan)
        if not is_read:
            groups = trace(self.model, self.probe, _random_filters(plan))
            groups = self._draw_silent_filters_again(plan, groups)
        output = evaluate(self.model, self.probe)
        verification.check_shapes(output, before)
        if expected is not None:
            self._check_output(output, expected, groups.rounding_unit)
        return PerformedEdit(plan, undo, verification.relative_difference(output, before), groups)

    def _output_without_values(self, plan: EditPlan) -> list[torch.Tensor]:
        """Return the output with everything zero that a plan gives new values.

        If the plan sets outgoing weights to zero, the filters' new coefficients must not matter.
        Their old ones may be NaN.
        """
        zeros = [msgspec.structs.replace(value, action="zero") for value in plan.values]
        return output_with_values(self.tx, self.model, zeros, self.probe)

    def _check_output(
        self, output: list[torch.Tensor], expected: list[torch.Tensor], rounding_unit: float
    ) -> None:
        def perturbed() -> list[torch.Tensor]:
            return output_with_perturbed_weights(self.tx, self.model, self.probe, rounding_unit)

        verification.check_output(output, expected, rounding_unit, perturbed)

    def _draw_silent_filters_again(self, plan: EditPlan, after: ChannelGroups) -> ChannelGroups:
        """Draw filters again whose output is zero wherever it is read; return the last trace.

        A filter that is silent behind a ReLU from the start gets no gradient.
        """
        generator = self._generator()
        for _ in range(MAX_DRAWS):
            if not len(after.silent_channels):
                return after
            for edit in _random_edits(plan):
                draw_again(self.tx, self.model, edit, generator)
            after = trace(self.model, self.probe, _random_filters(plan))
        if len(after.silent_channels):
            plan.notes.append(
                f"a new filter is silent on the verifying batch, also after {MAX_DRAWS} "
                "initializations; its input may be silent"
            )
        return after


def _random_filters(plan: EditPlan) -> list[tuple[str, int, int]]:
    """Return (tensor, dim, index) of every entry that is drawn at random."""
    edits = _random_edits(plan)
    return [(edit.tensor, edit.dim, i) for edit in edits for i in random_entries(edit)]


def _random_edits(plan: EditPlan) -> list[TensorEdit | ValueEdit]:
    """Return the changes that draw random values."""
    edits: list[TensorEdit | ValueEdit] = [*plan.values, *plan.tensors]
    return [edit for edit in edits if random_entries(edit)]


def _realigned(
    before: ChannelGroups, after: ChannelGroups, plan: EditPlan, *, strict: bool
) -> EditPlan:
    """Return the plan with the columns of consumers where their channels arrive.

    Returns ``plan`` itself if they were right.

    Raises:
        EditFailedError: a channel arrives at a consumer that did not read it before.
    """
    tensors = realign_columns(before, after, plan.tensors, strict=strict)
    if tensors == plan.tensors:
        return plan
    by_dimension = {(edit.tensor, edit.dim): edit for edit in tensors}
    filters = [filter_move(m.layer, by_dimension[m.tensor, m.dim], m.size) for m in plan.filters]
    return msgspec.structs.replace(plan, tensors=tensors, filters=filters)


def _normalized_together(groups: ChannelGroups, plan: EditPlan) -> bool:
    """Return whether the edited channels are normalized together: then no output is expected."""
    edited = {g for m in plan.filters for g in groups.groups_of_filters(m.layer, _edited(m))}
    return bool(groups.why_normalized_together(edited))


def _edited(move: FilterMove) -> list[int]:
    """Return the filters that a move removes or, if it adds filters, those it copies."""
    order, new = order_of(move)
    if new.any():
        return sorted(set(order[new].tolist()))
    return sorted(set(range(move.size)) - set(order.tolist()))
