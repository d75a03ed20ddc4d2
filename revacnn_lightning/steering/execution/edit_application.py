"""Performs a plan inside a transaction and verifies the result with real forwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

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
    locate_random_entries,
    random_edits,
)
from revacnn_lightning.steering.execution.reference_outputs import (
    expected_output,
    output_with_perturbed_weights,
    output_with_values,
)
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.execution.value_edits import redraw_random_entries
from revacnn_lightning.steering.holders.model_copy import ModelPartCopy
from revacnn_lightning.steering.planning.plan import EditPlan
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.steering.tracing.forward_cache import EditForwardCache
from revacnn_lightning.steering.tracing.forward_probe import (
    ForwardFailedError,
    ForwardProbe,
    evaluate_first_forward,
    trace_and_evaluate,
    trace_channel_groups,
)
from revacnn_lightning.telemetry.unit_layers import UnitLayer

__all__ = ["EditApplication"]

# How outputs are compared: in the network's own precision with a tolerance of a few rounding units,
# or of as much as rounding explains; or in double precision.
Comparison = Literal["quick", "own", "double"]

# A fresh filter is active on about half of all inputs; after eight silent draws, assume that its
# input is silent.
MAX_DRAWS = 8


class TracedForward(NamedTuple):
    """What a traced forward of an edited model shows of its values.

    Attributes:
        output: what it returned.
        strengths: those of the filters of every conv with new ones, see `measured_strengths`.
    """

    output: list[torch.Tensor]
    strengths: Mapping[UnitLayer, torch.Tensor]


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
    _comparison: Comparison = "own"

    def __post_init__(self) -> None:
        self._forwards = EditForwardCache()
        self.probe = replace(self.probe, shared=self._forwards)

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
        self._comparison = comparison
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
        before = self._evaluate()
        start, is_double = self.tx.size, self._is_double
        expected = expected_output(
            self.tx, self.model, plan, self.probe, before, self._initializer(), double=is_double
        )
        undo = self.perform_changes(plan)
        comparable = not are_normalized_together(groups, plan)
        after, traced = self._trace(plan, groups, evaluates=comparable)
        realigned = correct_plan_columns(groups, after, plan, strict=not comparable)
        if realigned is not plan:
            self.tx.rollback(keep=start)
            plan, traced = realigned, None
            undo = self.perform_changes(plan)
        if len(after.silent_channels):
            after, traced = self._draw_silent_filters_again(plan, after), None
        matched = self._match_activations(plan, after, traced, is_last=comparable)
        if comparable:
            output = self._check_output(matched, expected, after.rounding_unit, traced)
        else:
            output = self._evaluate(is_last=True)  # it depends on the strength of new filters
        return PerformedEdit(plan, undo, verification.relative_difference(output, before), after)

    def _change_layers(self, plan: EditPlan) -> PerformedEdit:
        """Insert a block, which keeps the output, or remove a layer, which does not."""
        before = self._evaluate()
        undo = self.perform_changes(plan)
        with verification.execution_forbidden(undo.removed_layers):
            after = trace_channel_groups(self.model, self.probe)
            output = self._evaluate(is_last=True)
        verification.check_shapes(output, before)
        if all(layer.action == "insert" for layer in plan.layers):
            self._check_output(output, before, after.rounding_unit)
        return PerformedEdit(plan, undo, verification.relative_difference(output, before), after)

    def _change_values(self, plan: EditPlan, groups: ChannelGroups) -> PerformedEdit:
        before = self._evaluate()
        is_read = not any(value.action == "zero" for value in plan.values)
        expected = None if is_read else self._output_without_values(plan)
        undo = self.perform_changes(plan)
        if expected is None:
            output = self._evaluate(is_last=True)
            verification.check_shapes(output, before)
        else:
            groups, traced = self._trace(plan, groups, evaluates=True)
            if len(groups.silent_channels):
                groups, traced = self._draw_silent_filters_again(plan, groups), None
            matched = self._match_activations(plan, groups, traced, is_last=True)
            output = self._check_output(matched, expected, groups.rounding_unit, traced)
        return PerformedEdit(plan, undo, verification.relative_difference(output, before), groups)

    def _output_without_values(self, plan: EditPlan) -> list[torch.Tensor]:
        """Return the output with everything zero that a plan gives new values.

        If the plan sets outgoing weights to zero, the filters' new coefficients must not matter.
        Their old ones may be NaN.
        """
        zeros = [msgspec.structs.replace(value, action="zero") for value in plan.values]
        return output_with_values(self.tx, self.model, zeros, self.probe, double=self._is_double)

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
            traced: the traced forward, see `_trace`. If its output is the expected one, that is
                enough.
        """
        unit = verification.DOUBLE_UNIT if self._is_double else rounding_unit
        if output is None:
            if traced and verification.are_equal_up_to_rounding(traced.output, expected, unit):
                return traced.output
            output = self._evaluate(is_last=True)

        def perturbed() -> list[torch.Tensor]:
            if self._is_double:
                return self._evaluate(noise=unit)
            return output_with_perturbed_weights(self.tx, self.model, self.probe, unit)

        is_quick = self._comparison == "quick"
        verification.check_shapes(output, expected)
        verification.check_output(output, expected, unit, None if is_quick else perturbed)
        return output

    @property
    def _is_double(self) -> bool:
        return self._comparison == "double"

    def _evaluate(self, noise: float = 0.0, *, is_last: bool = False) -> list[torch.Tensor]:
        """Return the output, in the precision of this attempt."""
        return evaluate_first_forward(
            self.model, self.probe, double=self._is_double, noise=noise, is_last=is_last
        )

    def _trace(
        self, plan: EditPlan, last: ChannelGroups, *, evaluates: bool
    ) -> tuple[ChannelGroups, TracedForward | None]:
        """Trace the edited model; ``last`` is its last trace.

        With ``evaluates``, also return what the traced forward shows, if the model runs the same
        code in training mode as in evaluation mode.
        """
        new, heads = locate_random_entries(plan), last.has_heads
        signature = self._forwards.evaluated_signature
        if not evaluates or self._is_double or last.call_signature != signature:
            return trace_channel_groups(self.model, self.probe, new, expects_heads=heads), None
        with measured_strengths(edits_to_scale(self.model, random_edits(plan))) as strengths:
            after, output = trace_and_evaluate(self.model, self.probe, new, expects_heads=heads)
        is_evaluated = after.call_signature == signature
        return after, TracedForward(output, strengths) if is_evaluated else None

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
                output = self._evaluate(is_last=is_last)
            scale_new_filters(self.tx, self.model, edits, strengths)
        elif traced is not None:
            scale_new_filters(self.tx, self.model, edits, traced.strengths)
        sync_random_entries(self.tx, self.model, plan, self.copies)
        return output

    def _trace_as_trained(self, plan: EditPlan, last: ChannelGroups) -> ChannelGroups:
        """Trace the edited model with the values of training; ``last`` is its last trace."""
        new, heads = locate_random_entries(plan), last.has_heads
        return trace_channel_groups(
            self.model, self.probe, new, expects_heads=heads, as_trained=True
        )

    def _draw_silent_filters_again(self, plan: EditPlan, after: ChannelGroups) -> ChannelGroups:
        """Draw filters again whose output is zero wherever it is read; return the last trace.

        A filter that is silent behind a ReLU from the start gets no gradient.
        """
        initializer = self._initializer()
        after = self._trace_as_trained(plan, after)  # so far, norms were those of evaluation
        for _ in range(MAX_DRAWS):
            if not len(after.silent_channels):
                return after
            for edit in random_edits(plan):
                redraw_random_entries(self.tx, self.model, edit, initializer)
            sync_random_entries(self.tx, self.model, plan, self.copies)
            after = self._trace_as_trained(plan, after)
        if len(after.silent_channels):
            plan.notes.append(
                f"a new filter is silent on the verifying batch, also after {MAX_DRAWS} "
                "initializations; its input may be silent"
            )
        return after
