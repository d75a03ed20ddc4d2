"""`Editor`: the entry point to steering. It plans, applies, verifies, records and undoes edits.

An edit is exact or it does not happen. `Editor.apply` plans it (refusing with a reason before
anything is changed), performs it in a transaction, verifies it with real forwards, and only then
records it in the journal. If a step fails, everything is rolled back.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

from torch import nn
from torch.optim import Optimizer

from revacnn_lightning.errors import EditFailedError, EditRefusedError, StaleStructureError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import edited_models
from revacnn_lightning.steering.execution.edit_application import EditApplication, PerformedEdit
from revacnn_lightning.steering.execution.freezing import Freezer
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.filter_ids import FilterIds
from revacnn_lightning.steering.journal import Journal
from revacnn_lightning.steering.planning.context import PlanningContext
from revacnn_lightning.steering.planning.plan import EditPlan
from revacnn_lightning.steering.planning.planner import make_plan
from revacnn_lightning.steering.planning.refusals import why_not_editable
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.steering.tracing.forward_probe import (
    ForwardFailedError,
    ForwardProbe,
    trace,
)
from revacnn_lightning.steering.undo import plan_redo, plan_undo

__all__ = ["AppliedEdit", "Editor"]


@dataclass
class AppliedEdit:
    """An edit that was applied.

    ``output_change`` is the relative change of the model's output on the verifying batch.
    """

    plan: EditPlan
    output_change: float | None
    seconds: float


class Editor:
    """Changes the structure of ``model`` in place, together with its optimizers' state.

    With a ``journal`` that already has entries, ``model`` must be the model they were replayed
    on. ``optimizers`` may be assigned again at any time: a resumed run creates new ones.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer] = (),
        *,
        journal: Journal | None = None,
    ) -> None:
        self.model = model
        self.journal = Journal() if journal is None else journal
        self._filters = FilterIds(model)
        for entry in self.journal.entries:
            self._filters.apply(entry.plan)
        self._freezer = Freezer(model, self._filters)
        self.optimizers = list(optimizers)
        self._groups: ChannelGroups | None = None
        self._traced_version = -1
        self._busy = False

    @property
    def version(self) -> int:
        """The structure version: the number of applied edits, undos and redos."""
        return self.journal.version

    @property
    def optimizers(self) -> list[Optimizer]:
        """The optimizers that train the model. Assign a new list to change them."""
        return self._optimizers

    @optimizers.setter
    def optimizers(self, optimizers: Sequence[Optimizer]) -> None:
        self._optimizers = list(optimizers)
        self._freezer.refresh(self._optimizers)

    def close(self) -> None:
        """Remove every hook of frozen filters from the model and its optimizers."""
        self._freezer.release()

    # ---------------------------------------------------------------- inspecting

    def filter_ids(self, layer: str) -> list[int]:
        """Return the permanent ids of a conv's filters, by index."""
        return self._filters.ids_of(layer)

    def frozen_filters(self, layer: str) -> list[int]:
        """Return the indices of a conv's frozen filters."""
        return self._filters.frozen_indices(layer)

    @property
    def is_traced(self) -> bool:
        """Whether the present structure is traced already, so that planning needs no forward."""
        return self._groups is not None and self._traced_version == self.version

    def channel_groups(self, probe: ForwardProbe) -> ChannelGroups:
        """Return the channel groups, traced with the probe's forwards once per version.

        Raises:
            EditRefusedError: the model's forward raised.
        """
        if self._groups is None or not self.is_traced:
            try:
                self._groups = trace(self.model, probe)
            except ForwardFailedError as error:
                raise EditRefusedError(f"{error}; nothing was changed{error.hint}") from error
            self._traced_version = self.version
        return self._groups

    def edges(self, probe: ForwardProbe) -> list[tuple[str, str]]:
        """Return (conv, conv) pairs: the filters of the first feed the second."""
        return list(self.channel_groups(probe).edges)

    def refusals(self, probe: ForwardProbe) -> dict[str, str]:
        """Return conv -> why no filter can be added or removed there. Editable convs are absent."""
        groups = self.channel_groups(probe)
        convs = [*groups.filters, *groups.untraced, *groups.unlabeled]
        reasons = {layer: why_not_editable(groups, layer) for layer in convs}
        return {layer: reason for layer, reason in reasons.items() if reason}

    def plan(
        self, request: requests.Edit, probe: ForwardProbe, version: int | None = None
    ) -> EditPlan:
        """Return what the request would do. Changes nothing.

        Raises:
            StaleStructureError: the request was made for another structure ``version``.
            EditRefusedError: it cannot be carried out; the message says why.
        """
        if version is not None and version != self.version:
            raise StaleStructureError(
                f"the request was made for structure {version}, but the network is at "
                f"{self.version} now; refresh and repeat the request"
            )
        if isinstance(request, requests.Undo):
            return plan_undo(request, self.journal, self.model, lambda: self.channel_groups(probe))
        if isinstance(request, requests.Redo):
            return plan_redo(request, self.journal, self.model, lambda: self.channel_groups(probe))
        context = PlanningContext(
            self.model, self.channel_groups(probe), self.optimizers, self.frozen_filters
        )
        return make_plan(context, request)

    # ---------------------------------------------------------------- changing

    def apply(
        self, request: requests.Edit, probe: ForwardProbe, version: int | None = None
    ) -> AppliedEdit:
        """Carry out the request and verify it, or change nothing.

        Raises:
            StaleStructureError: the request was made for another structure ``version``.
            EditRefusedError: it cannot be carried out; nothing was changed.
            EditFailedError: the verification failed; everything was rolled back.
        """
        start = perf_counter()
        with self._one_at_a_time():
            plan = self.plan(request, probe, version)
            with Transaction() as tx:
                try:
                    performed = self._perform(tx, plan, probe)
                except ForwardFailedError as error:
                    raise EditFailedError(
                        f"{error} after the edit; the edit was rolled back{error.hint}"
                    ) from error
            self._commit(performed)
        return AppliedEdit(performed.plan, performed.output_change, perf_counter() - start)

    def _perform(self, tx: Transaction, plan: EditPlan, probe: ForwardProbe) -> PerformedEdit:
        edits = EditApplication(tx, self.model, self.optimizers, probe, seed=self.version + 1)
        if isinstance(plan.request, requests.Undo):
            newest = self.journal.entries[-plan.request.count :]
            return edits.revert(plan, [(e.plan, e.undo) for e in newest if e.undo is not None])
        if isinstance(plan.request, requests.Redo):
            return edits.redo(plan, self.journal.undone[: -plan.request.count - 1 : -1])
        return edits.perform(plan, self.channel_groups(probe))

    def _commit(self, performed: PerformedEdit) -> None:
        """Record a verified edit. Nothing in here may fail."""
        plan, undo = performed.plan, performed.undo
        if isinstance(plan.request, requests.Undo):
            self.journal.remove_newest(performed.added)
            for _ in performed.added:
                self._filters.revert()
        elif isinstance(plan.request, requests.Redo):
            self.journal.restore(performed.redone)
            for entry in self.journal.entries[-len(performed.redone) :]:
                self._filters.redo(entry.plan)
        elif undo is not None:
            undo.groups_before = self._groups
            if plan.layers:
                norm_after = performed.groups.norm_after
                plan.norms = {n: sorted(norm_after.get(n, ())) for n in self._filters.frozen}
            self._filters.apply(plan)
            self.journal.append(plan, undo)
        edited_models.remember(self.model, self.journal)
        self._freezer.refresh(self.optimizers)
        self._groups, self._traced_version = performed.groups, self.version
        if plan.layers or plan.freezes or undo is None:
            _reset_compiled_code()

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        """Refuse an edit that is requested while another one runs, by the model's own forward."""
        if self._busy:
            raise EditRefusedError(
                "another edit is being applied; repeat the request when it is done"
            )
        self._busy = True
        try:
            yield
        finally:
            self._busy = False


def _reset_compiled_code() -> None:
    """Make ``torch.compile`` compile again: compiled code ignores added and removed hooks."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None:
        dynamo.reset()
