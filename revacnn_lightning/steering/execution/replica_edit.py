"""A plan that another process has made, performed on the replica of the model in this one."""

from __future__ import annotations

from torch import Tensor

from revacnn_lightning.protocol import requests
from revacnn_lightning.steering.execution import verification
from revacnn_lightning.steering.execution.copy_edits import (
    check_same_structure,
    sync_random_entries,
)
from revacnn_lightning.steering.execution.edit_application import EditApplication
from revacnn_lightning.steering.execution.executor import PerformedEdit
from revacnn_lightning.steering.planning.plan import EditPlan
from revacnn_lightning.steering.tracing.forward_probe import evaluate_first_forward

__all__ = ["ReplicaEditExecution"]


class ReplicaEditExecution:
    """Performs a resolved plan, and verifies it once its values are those of the other process.

    Until then, new entries have the values of a fresh layer. What that process has drawn may depend
    on its data.
    """

    def __init__(self, application: EditApplication, plan: EditPlan) -> None:
        self._application = application
        self._plan = plan
        self._before: list[Tensor] = []

    def perform(self) -> PerformedEdit:
        """Perform the plan, but do not verify it.

        Raises:
            ForwardFailedError: the model's forward raised before the edit.
        """
        if self._plan.changes_tensors:
            self._before = evaluate_first_forward(self._application.model, self._application.probe)
        return PerformedEdit(self._plan, self._application.perform_changes(self._plan), 0.0, None)

    def verify(self, performed: PerformedEdit) -> None:
        """Check that the network runs on the data of this process.

        Raises:
            EditFailedError: the output has other shapes, or a copy has another structure.
            ForwardFailedError: the model's forward raised.
        """
        edits = self._application
        if isinstance(self._plan.request, requests.Undo | requests.Redo):
            return  # they draw no values, and were verified when they were performed
        if not self._plan.changes_tensors:
            return  # freezing
        sync_random_entries(edits.tx, edits.model, self._plan, edits.copies)
        check_same_structure(edits.model, edits.copies)
        removed = {} if performed.undo is None else performed.undo.removed_layers
        with verification.execution_forbidden(removed):
            output = evaluate_first_forward(edits.model, edits.probe)
        verification.check_shapes(output, self._before)
