"""Performs a plan inside a transaction and verifies the result with real forwards."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec
import torch
from torch import nn
from torch.optim import Optimizer

from revacnn_lightning.steering.execution import verification
from revacnn_lightning.steering.execution.activation_matching import (
    edits_to_scale,
    measured_strengths,
    scale_new_filters,
)
from revacnn_lightning.steering.execution.copy_edits import (
    check_same_structure,
    perform_on_copies,
    revert_on_copies,
    sync_random_entries,
)
from revacnn_lightning.steering.execution.edit_forwards import (
    Comparison,
    EditForwards,
    TracedForward,
)
from revacnn_lightning.steering.execution.executor import (
    PerformedEdit,
    UndoneEdit,
    UndoRecord,
    perform,
    revert,
)
from revacnn_lightning.steering.execution.initialization import Initialization, Initializer
from revacnn_lightning.steering.execution.plan_queries import (
    are_normalized_together,
    correct_plan_columns,
    random_edits,
)
from revacnn_lightning.steering.execution.reference_outputs import (
    expected_output,
    output_with_perturbed_weights,
    output_with_values,
)
from revacnn_lightning.steering.execution.silent_filters import draw_silent_filters_again
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.execution.value_edits import redraw_random_entries
from revacnn_lightning.steering.holders.model_copy import ModelPartCopy
from revacnn_lightning.steering.planning.plan import EditPlan
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.steering.tracing.forward_probe import (
    ForwardFailedError,
    ForwardProbe,
    evaluate_first_forward,
)
from revacnn_lightning.steering.tracing.traced_forwards import trace_channel_groups

__all__ = ["EditApplication"]


@dataclass
class EditApplication:
    """Performs and verifies edits of one model. If one fails, the rollback is up to ``tx``.

    Attributes:
        seed: the seed of the random values that an edit draws. Each step of an edit uses a
            generator of its own, so training's random state is unaffected.
        copies: the copies that are not registered in the model. They are edited along.
        initialize: the user's initialization of a layer, for new filters.
    """

    tx: Transaction
    model: nn.Module
    optimizers: Sequence[Optimizer]
    probe: ForwardProbe
    seed: int
    copies: Sequence[ModelPartCopy] = ()
    initialize: Initialization | None = None

    def __post_init__(self) -> None:
        self._forwards = EditForwards(self.model, self.probe)
        self.probe = self._forwards.probe

    def perform(self, plan: EditPlan, channel_groups: ChannelGroups) -> PerformedEdit:
        """Perform a plan. ``channel_groups`` are the channel groups of the model before.

        The outputs are compared in single precision. If they differ by more than a few rounding
        units, and in half precision always, they are compared in double precision, which decides.
        Networks that cannot compute in double precision are judged by their own rounding.

        Raises:
            EditFailedError: the verification failed.
            ForwardFailedError: the model's forward raised after the edit.
        """
        start, unit = self.tx.size, channel_groups.rounding_unit
        if unit <= verification.DOUBLE_UNIT:
            return self._attempt(plan, channel_groups, "own")
        if unit <= verification.SINGLE_UNIT:
            with suppress(verification.UnexplainedDifferenceError):
                return self._attempt(plan, channel_groups, "quick")
            self.tx.rollback(keep=start)
        with suppress(ForwardFailedError):
            return self._attempt(plan, channel_groups, "double")
        self.tx.rollback(keep=start)
        return self._attempt(plan, channel_groups, "own")

    def _attempt(
        self, plan: EditPlan, groups: ChannelGroups, comparison: Comparison
    ) -> PerformedEdit:
        """Perform a plan and verify it."""
        plan = msgspec.structs.replace(plan, notes=[*plan.notes])
        self._forwards.comparison = comparison
        if plan.tensors:
            performed = self._resize(plan, groups)
        elif plan.layers:
            performed = self._change_layers(plan)
        elif plan.values:
            performed = self._change_values(plan, groups)
        else:
            return PerformedEdit(plan, UndoRecord(), 0.0, groups)  # freezing changes no tensor
        check_same_structure(self.model, self.copies)
        return performed

    def revert(
        self, plan: EditPlan, performed: Sequence[tuple[EditPlan, UndoRecord]]
    ) -> PerformedEdit:
        """Revert edits, given oldest first. ``plan`` is that of the undo."""
        before = evaluate_first_forward(self.model, self.probe)
        undone = []
        for done, undo in reversed(performed):
            added = revert(self.tx, self.model, done, self.optimizers, undo)
            copies = revert_on_copies(self.tx, self.model, done, self.copies, undo)
            undone.append(UndoneEdit(done, added, copies))
        check_same_structure(self.model, self.copies)
        known = performed[0][1].groups_before
        output = evaluate_first_forward(self.model, self.probe, is_last=known is not None)
        verification.check_shapes(output, before)
        groups = known or trace_channel_groups(self.model, self.probe)
        change = verification.relative_difference(output, before)
        return PerformedEdit(plan, None, change, groups, undone=undone)

    def redo(self, plan: EditPlan, undone: Sequence[UndoneEdit]) -> PerformedEdit:
        """Perform undone edits again, in this order. ``plan`` is that of the redo."""
        before = evaluate_first_forward(self.model, self.probe)
        redone, removed = [], {}
        for edit in undone:
            undo = perform(
                self.tx, self.model, edit.plan, self.optimizers, self._initializer(), edit.added
            )
            perform_on_copies(
                self.tx, self.model, edit.plan, self.copies, undo, self._initializer(), edit.copies
            )
            redone.append(undo)
            removed.update(undo.removed_layers)
        check_same_structure(self.model, self.copies)
        with verification.execution_forbidden(removed):
            groups = trace_channel_groups(self.model, self.probe)
            output = evaluate_first_forward(self.model, self.probe, is_last=True)
        verification.check_shapes(output, before)
        change = verification.relative_difference(output, before)
        return PerformedEdit(plan, None, change, groups, redone=redone)

    def _initializer(self) -> Initializer:
        return Initializer.seeded(self.seed, self.initialize)

    def perform_changes(self, plan: EditPlan) -> UndoRecord:
        """Perform the changes of a plan on the model and its copies, without verifying them."""
        undo = perform(self.tx, self.model, plan, self.optimizers, self._initializer())
        perform_on_copies(self.tx, self.model, plan, self.copies, undo, self._initializer())
        return undo

    def _resize(self, plan: EditPlan, groups: ChannelGroups) -> PerformedEdit:
        """Change values and sizes, realign the columns of consumers, and compare the output."""
        before = self._forwards.evaluate()
        start, is_double = self.tx.size, self._forwards.is_double
        expected = expected_output(
            self.tx, self.model, plan, self.probe, before, self._initializer(), double=is_double
        )
        undo = self.perform_changes(plan)
        comparable = not are_normalized_together(groups, plan)
        after, traced = self._forwards.trace(plan, groups, evaluates=comparable)
        realigned = correct_plan_columns(groups, after, plan, strict=not comparable)
        if realigned is not plan:
            self.tx.rollback(keep=start)
            plan, traced = realigned, None
            undo = self.perform_changes(plan)
        if len(after.silent_channels):
            after, traced = self._draw_again(plan, after), None
        matched = self._match_activations(plan, after, traced, is_last=comparable)
        if comparable:
            output = self._check_output(matched, expected, after.rounding_unit, traced)
        else:
            output = self._forwards.evaluate(is_last=True)  # depends on new filters' strength
        return PerformedEdit(plan, undo, verification.relative_difference(output, before), after)

    def _change_layers(self, plan: EditPlan) -> PerformedEdit:
        """Insert a block, which keeps the output, or remove a layer, which does not."""
        before = self._forwards.evaluate()
        undo = self.perform_changes(plan)
        with verification.execution_forbidden(undo.removed_layers):
            after = trace_channel_groups(self.model, self.probe)
            output = self._forwards.evaluate(is_last=True)
        verification.check_shapes(output, before)
        if all(layer.action == "insert" for layer in plan.layers):
            self._check_output(output, before, after.rounding_unit)
        return PerformedEdit(plan, undo, verification.relative_difference(output, before), after)

    def _change_values(self, plan: EditPlan, groups: ChannelGroups) -> PerformedEdit:
        before = self._forwards.evaluate()
        is_read = not any(value.action == "zero" for value in plan.values)
        expected = None if is_read else self._output_without_values(plan)
        undo = self.perform_changes(plan)
        if expected is None:
            output = self._forwards.evaluate(is_last=True)
            verification.check_shapes(output, before)
        else:
            groups, traced = self._forwards.trace(plan, groups, evaluates=True)
            if len(groups.silent_channels):
                groups, traced = self._draw_again(plan, groups), None
            matched = self._match_activations(plan, groups, traced, is_last=True)
            output = self._check_output(matched, expected, groups.rounding_unit, traced)
        return PerformedEdit(plan, undo, verification.relative_difference(output, before), groups)

    def _output_without_values(self, plan: EditPlan) -> list[torch.Tensor]:
        """Return the output with everything zero that a plan gives new values.

        If the plan sets outgoing weights to zero, the filters' new coefficients must not matter.
        Their old ones may be NaN.
        """
        zeros = [msgspec.structs.replace(value, action="zero") for value in plan.values]
        return output_with_values(
            self.tx, self.model, zeros, self.probe, double=self._forwards.is_double
        )

    def _check_output(
        self,
        output: list[torch.Tensor] | None,
        expected: list[torch.Tensor],
        rounding_unit: float,
        traced: TracedForward | None = None,
    ) -> list[torch.Tensor]:
        """Check the output of the edited model, and return it.

        Args:
            output: that of an evaluation, if there was one.
            traced: the traced forward, see `EditForwards.trace`. It suffices if its output is the
                expected one.
        """
        unit = verification.DOUBLE_UNIT if self._forwards.is_double else rounding_unit
        if output is None:
            if traced and verification.are_equal_up_to_rounding(traced.output, expected, unit):
                return traced.output
            output = self._forwards.evaluate(is_last=True)

        def perturbed() -> list[torch.Tensor]:
            if self._forwards.is_double:
                return self._forwards.evaluate(noise=unit)
            return output_with_perturbed_weights(self.tx, self.model, self.probe, unit)

        is_quick = self._forwards.comparison == "quick"
        verification.check_shapes(output, expected)
        verification.check_output(output, expected, unit, None if is_quick else perturbed)
        return output

    def _match_activations(
        self, plan: EditPlan, groups: ChannelGroups, traced: TracedForward | None, *, is_last: bool
    ) -> list[torch.Tensor] | None:
        """Make new filters as active as the others, except where a norm does so anyway.

        Returns the output of the model, which does not depend on their strength; None if no
        evaluation was necessary.
        """
        normalized = {layer for layer, norms in groups.norm_after.items() if norms}
        drawn = [e for e in random_edits(plan) if e.tensor.rpartition(".")[0] not in normalized]
        edits, output = edits_to_scale(self.model, drawn), None
        if edits and traced is None:
            with measured_strengths(edits) as strengths:
                output = self._forwards.evaluate(is_last=is_last)
            scale_new_filters(self.tx, self.model, edits, strengths)
        elif traced is not None:
            scale_new_filters(self.tx, self.model, edits, traced.strengths)
        sync_random_entries(self.tx, self.model, plan, self.copies)
        return output

    def _draw_again(self, plan: EditPlan, after: ChannelGroups) -> ChannelGroups:
        """Draw silent new filters again, in the model and its copies; return the last trace."""

        def draw(initializer: Initializer) -> None:
            for edit in random_edits(plan):
                redraw_random_entries(self.tx, self.model, edit, initializer)
            sync_random_entries(self.tx, self.model, plan, self.copies)

        return draw_silent_filters_again(self._forwards, plan, after, draw, self._initializer())
