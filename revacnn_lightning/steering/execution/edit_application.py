"""Performs a plan inside a transaction and verifies the result with real forwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec
import torch
from torch import nn
from torch.optim import Optimizer

from revacnn_lightning.steering.execution import verification
from revacnn_lightning.steering.execution.activation_matching import match_activations
from revacnn_lightning.steering.execution.copy_edits import (
    check_alike,
    perform_on_copies,
    revert_on_copies,
    update_new_entries,
)
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
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.execution.value_edits import draw_again, random_entries
from revacnn_lightning.steering.holders.copy_plans import with_origins
from revacnn_lightning.steering.holders.model_copy import ModelCopy
from revacnn_lightning.steering.planning.index_mapping import realign_columns
from revacnn_lightning.steering.planning.plan import (
    EditPlan,
    FilterMove,
    TensorEdit,
    ValueEdit,
    order_of,
)
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.steering.tracing.forward_probe import ForwardProbe, evaluate, trace
from revacnn_lightning.steering.tracing.shared_forwards import SharedForwards

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
        undone: for an undo: the undone edits, newest first.
        redone: for a redo: what is needed to revert each redone edit again, oldest first.
    """

    plan: EditPlan
    undo: UndoRecord | None
    output_change: float
    groups: ChannelGroups
    undone: list[UndoneEdit] = field(default_factory=list)
    redone: list[UndoRecord] = field(default_factory=list)


@dataclass
class EditApplication:
    """Performs and verifies edits of one model. If one fails, the rollback is up to ``tx``.

    Attributes:
        seed: of the random values that an edit draws. Each step of an edit uses a generator of its
            own, so training's random state is unaffected.
        copies: those of the model's modules that are not registered in it; they are edited along.
    """

    tx: Transaction
    model: nn.Module
    optimizers: Sequence[Optimizer]
    probe: ForwardProbe
    seed: int
    copies: Sequence[ModelCopy] = ()

    def __post_init__(self) -> None:
        self.probe = replace(self.probe, shared=SharedForwards())

    def perform(self, plan: EditPlan, groups: ChannelGroups) -> PerformedEdit:
        """Perform a plan. ``groups`` are the channel groups of the model before.

        Raises:
            EditFailedError: the verification failed.
            ForwardFailedError: the model's forward raised after the edit.
        """
        if plan.tensors:
            performed = self._resize(plan, groups)
        elif plan.layers:
            performed = self._change_layers(plan)
        elif plan.values:
            performed = self._change_values(plan, groups)
        else:
            return PerformedEdit(plan, UndoRecord(), 0.0, groups)  # freezing changes no tensor
        check_alike(self.model, self.copies)
        return performed

    def revert(
        self, plan: EditPlan, performed: Sequence[tuple[EditPlan, UndoRecord]]
    ) -> PerformedEdit:
        """Revert edits, given oldest first. ``plan`` is that of the undo."""
        before = evaluate(self.model, self.probe)
        undone = []
        for done, undo in reversed(performed):
            added = revert(self.tx, self.model, done, self.optimizers, undo)
            copies = revert_on_copies(self.tx, self.model, done, self.copies, undo)
            undone.append(UndoneEdit(done, added, copies))
        check_alike(self.model, self.copies)
        output = evaluate(self.model, self.probe)
        verification.check_shapes(output, before)
        groups = performed[0][1].groups_before or trace(self.model, self.probe)
        change = verification.relative_difference(output, before)
        return PerformedEdit(plan, None, change, groups, undone=undone)

    def redo(self, plan: EditPlan, undone: Sequence[UndoneEdit]) -> PerformedEdit:
        """Perform undone edits again, in this order. ``plan`` is that of the redo."""
        before = evaluate(self.model, self.probe)
        redone, removed = [], {}
        for edit in undone:
            undo = perform(
                self.tx, self.model, edit.plan, self.optimizers, self._generator(), edit.added
            )
            perform_on_copies(
                self.tx, self.model, edit.plan, self.copies, undo, self._generator(), edit.copies
            )
            redone.append(undo)
            removed.update(undo.removed_layers)
        check_alike(self.model, self.copies)
        with verification.forbid_execution(removed):
            groups = trace(self.model, self.probe)
            output = evaluate(self.model, self.probe)
        verification.check_shapes(output, before)
        change = verification.relative_difference(output, before)
        return PerformedEdit(plan, None, change, groups, redone=redone)

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def _perform(self, plan: EditPlan) -> UndoRecord:
        undo = perform(self.tx, self.model, plan, self.optimizers, self._generator())
        perform_on_copies(self.tx, self.model, plan, self.copies, undo, self._generator())
        return undo

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
        output = self._match_activations(plan, after)
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
            output = self._match_activations(plan, groups)
        else:
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

    def _match_activations(self, plan: EditPlan, groups: ChannelGroups) -> list[torch.Tensor]:
        """Make new filters as active as the others, except where a norm does so anyway.

        Returns the output of the model, which does not depend on their strength.
        """
        normalized = {layer for layer, norms in groups.norm_after.items() if norms}
        edits = [e for e in _random_edits(plan) if e.tensor.rpartition(".")[0] not in normalized]
        output = match_activations(self.tx, self.model, edits, self.probe)
        update_new_entries(self.tx, self.model, plan, self.copies)
        return evaluate(self.model, self.probe) if output is None else output

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
            update_new_entries(self.tx, self.model, plan, self.copies)
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
    return [edit for edit in edits if random_entries(edit) and not edit.origin]


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
    return with_origins(msgspec.structs.replace(plan, tensors=tensors))


def _normalized_together(groups: ChannelGroups, plan: EditPlan) -> bool:
    """Return whether the edited channels are normalized together: then no output is expected."""
    moves = [move for move in plan.filters if move.layer in groups.filters]
    edited = {g for m in moves for g in groups.groups_of_filters(m.layer, _edited(m))}
    return bool(groups.why_normalized_together(edited))


def _edited(move: FilterMove) -> list[int]:
    """Return the filters that a move removes or, if it adds filters, those it copies."""
    order, new = order_of(move)
    if new.any():
        return sorted(set(order[new].tolist()))
    return sorted(set(range(move.size)) - set(order.tolist()))
