"""The forwards of one edit, which share the outputs of their operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, NamedTuple

from torch import Tensor, nn

from revacnn_lightning.steering.execution.activation_matching import (
    edits_to_scale,
    measured_strengths,
)
from revacnn_lightning.steering.execution.plan_queries import locate_random_entries, random_edits
from revacnn_lightning.steering.planning.plan import EditPlan
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.steering.tracing.forward_cache import EditForwardCache
from revacnn_lightning.steering.tracing.forward_probe import ForwardProbe, evaluate_first_forward
from revacnn_lightning.steering.tracing.traced_forwards import (
    trace_and_evaluate,
    trace_channel_groups,
)
from revacnn_lightning.telemetry.unit_layers import UnitLayer

__all__ = ["Comparison", "EditForwards", "TracedForward"]

# How outputs are compared: in the network's own precision with a tolerance of a few rounding units,
# or of as much as rounding explains; or in double precision.
Comparison = Literal["quick", "own", "double"]


class TracedForward(NamedTuple):
    """What a traced forward of an edited model shows of its values.

    Attributes:
        output: what it returned.
        strengths: those of the filters of every conv with new ones, see `measured_strengths`.
    """

    output: list[Tensor]
    strengths: Mapping[UnitLayer, Tensor]


class EditForwards:
    """Runs the model during one edit: evaluated, or traced in training mode.

    Attributes:
        probe: the probe, with a cache that its forwards share.
        comparison: how the outputs of the present attempt are compared.
    """

    def __init__(self, model: nn.Module, probe: ForwardProbe) -> None:
        self._model = model
        self._cache = EditForwardCache()
        self.probe = replace(probe, shared=self._cache)
        self.comparison: Comparison = "own"

    @property
    def is_double(self) -> bool:
        """Whether evaluations compute in double precision."""
        return self.comparison == "double"

    def evaluate(self, noise: float = 0.0, *, is_last: bool = False) -> list[Tensor]:
        """Return the output, in the precision of this attempt."""
        return evaluate_first_forward(
            self._model, self.probe, double=self.is_double, noise=noise, is_last=is_last
        )

    def trace(
        self, plan: EditPlan, last: ChannelGroups, *, evaluates: bool
    ) -> tuple[ChannelGroups, TracedForward | None]:
        """Trace the edited model; ``last`` is its last trace.

        With ``evaluates``, also return what the traced forward shows, if the model runs the same
        code in training mode as in evaluation mode.
        """
        new, heads = locate_random_entries(plan), last.has_heads
        signature = self._cache.evaluated_signature
        if not evaluates or self.is_double or last.call_signature != signature:
            return trace_channel_groups(self._model, self.probe, new, expects_heads=heads), None
        with measured_strengths(edits_to_scale(self._model, random_edits(plan))) as strengths:
            after, output = trace_and_evaluate(self._model, self.probe, new, expects_heads=heads)
        is_evaluated = after.call_signature == signature
        return after, TracedForward(output, strengths) if is_evaluated else None

    def trace_as_trained(self, plan: EditPlan, last: ChannelGroups) -> ChannelGroups:
        """Trace the edited model with the values of training; ``last`` is its last trace."""
        new, heads = locate_random_entries(plan), last.has_heads
        return trace_channel_groups(
            self._model, self.probe, new, expects_heads=heads, as_trained=True
        )
