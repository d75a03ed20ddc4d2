"""`ShardedFreezeAndRateEditor`: freezes filters and scales rates of models split among ranks.

No rank can run such a network by itself, which tracing and verification need. Freezing and
scaling learning rates need neither: they change no tensor, and each rank restores its part of the
frozen filters, or scales its part of a step, after every step of the optimizer.
"""

from __future__ import annotations

from torch import nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering.editor import Editor, OptimizersAndCopies
from revacnn_lightning.steering.execution.edit_application import EditApplication
from revacnn_lightning.steering.execution.executor import PerformedEdit, UndoneEdit, UndoRecord
from revacnn_lightning.steering.execution.replica_edit import ReplicaEditExecution
from revacnn_lightning.steering.holders.copies import CopiesAndRestrictions
from revacnn_lightning.steering.planning.context import PlanningContext
from revacnn_lightning.steering.planning.lookup import find_layer
from revacnn_lightning.steering.planning.plan import EditPlan
from revacnn_lightning.steering.planning.planner import make_plan
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.steering.tracing.forward_probe import ForwardProbe
from revacnn_lightning.steering.tracing.trace import Trace
from revacnn_lightning.steering.undo import plan_redo, plan_undo
from revacnn_lightning.telemetry.split_tensors import is_distributed, local_index_range

__all__ = ["ShardedFreezeAndRateEditor"]

SPLIT = (
    "the parameters of the network are split among the processes of the training, and no process "
    "can run it by itself; filters can be frozen and learning rates of layers scaled, but filters "
    "cannot be changed"
)
NOT_YET = (
    "which batch norms belong to the layer is known only after the next batch; train one, then "
    "repeat the request"
)


class ShardedFreezeAndRateEditor(Editor):
    """An `Editor` of a sharded model: it only freezes filters and scales learning rates.

    It runs no forward.

    Its probes hold what training steps have shown of the norms behind the layers.
    """

    def channel_groups(self, probe: ForwardProbe) -> ChannelGroups:
        """Refuse to trace the network.

        Raises:
            EditRefusedError: always.
        """
        raise EditRefusedError(SPLIT)

    def _find_involved(self) -> OptimizersAndCopies:
        # A search for copies would compare values, which the ranks would have to exchange.
        return OptimizersAndCopies(self._all_optimizers(), CopiesAndRestrictions([], []))

    def _plan(
        self,
        request: requests.Edit,
        probe: ForwardProbe,
        version: int | None,
        involved: OptimizersAndCopies,
    ) -> EditPlan:
        self._check_version(version)
        if isinstance(request, requests.Undo | requests.Redo):
            return self._plan_split_undo(request)
        if not isinstance(
            request, requests.Freeze | requests.Unfreeze | requests.ScaleLearningRate
        ):
            raise EditRefusedError(SPLIT)
        if probe.norms is None or probe.norms.failure:
            raise EditRefusedError(NOT_YET if probe.norms is None else probe.norms.failure)
        if not isinstance(request, requests.ScaleLearningRate):
            _check_parts(find_layer(self.model, request.layer), request.layer)
        trace = Trace(self.model)  # without a forward
        trace.norm_after = probe.norms.of_layer
        context = PlanningContext(
            self.model,
            ChannelGroups(trace),
            involved.optimizers,
            self.frozen_filters,
            rate=self.learning_rate_factor,
        )
        return make_plan(context, request)

    def _plan_split_undo(self, request: requests.Undo | requests.Redo) -> EditPlan:
        if isinstance(request, requests.Undo):
            plan = plan_undo(request, self.journal, self.model, None)
        else:
            plan = plan_redo(request, self.journal, self.model, None)
        if any(each.changes_tensors for each in self._plans_of(plan)):
            raise EditRefusedError(SPLIT)
        return plan

    def _perform(
        self, edits: EditApplication, plan: EditPlan, replica: ReplicaEditExecution | None = None
    ) -> PerformedEdit:
        if isinstance(plan.request, requests.Undo):
            undone = [UndoneEdit(each, []) for each in reversed(self._plans_of(plan))]
            return PerformedEdit(plan, None, 0.0, None, undone=undone)
        if isinstance(plan.request, requests.Redo):
            redone = [UndoRecord() for _ in self._plans_of(plan)]
            return PerformedEdit(plan, None, 0.0, None, redone=redone)
        return PerformedEdit(plan, UndoRecord(), 0.0, None)


def _check_parts(layer: nn.Module, name: str) -> None:
    """Check that it is known which entries of the layer's parameters each rank has.

    Raises:
        EditRefusedError: it is not.
    """
    for parameter in layer.parameters():
        if is_distributed(parameter) and any(
            local_index_range(parameter, dim) is None for dim in range(parameter.ndim)
        ):
            placements = getattr(parameter, "placements", ())
            raise EditRefusedError(
                f"which filters of {name} each process has is unknown: its parameters are split as "
                f"{placements}"
            )
