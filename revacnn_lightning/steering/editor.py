"""`Editor`: the entry point to steering. It plans, applies, verifies, records and undoes edits.

An edit is exact or it does not happen. `Editor.apply` plans it (refusing with a reason before
anything is changed), performs it in a transaction, verifies it with real forwards, and only then
records it in the journal. If a step fails, everything is rolled back.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

from torch import nn
from torch.optim import Optimizer

from revacnn_lightning.errors import EditFailedError, EditRefusedError, StaleStructureError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import edited_models
from revacnn_lightning.steering.error_guard import only_steering_errors
from revacnn_lightning.steering.execution.compiled_code import reset_compiled_code
from revacnn_lightning.steering.execution.edit_application import EditApplication
from revacnn_lightning.steering.execution.executor import PerformedEdit, UndoneEdit
from revacnn_lightning.steering.execution.freezing import Freezer
from revacnn_lightning.steering.execution.group_membership import ParamGroupMembershipCheck
from revacnn_lightning.steering.execution.initialization import Initialization
from revacnn_lightning.steering.execution.peers import Peers, perform_and_agree
from revacnn_lightning.steering.execution.rate_scaling import LayerLearningRateScaler
from revacnn_lightning.steering.execution.replica_edit import ReplicaEditExecution
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.execution.verification import is_rounding
from revacnn_lightning.steering.execution.young_entries import YoungEntryHooks
from revacnn_lightning.steering.filter_ids import FilterIds
from revacnn_lightning.steering.holders.copies import CopiesAndRestrictions, CopyTracker
from revacnn_lightning.steering.holders.copy_plans import (
    add_copy_edits,
    check_copies_editable,
    check_not_a_copy,
    why_copy_not_resizable,
)
from revacnn_lightning.steering.holders.object_walk import CopyHolder
from revacnn_lightning.steering.holders.optimizers import all_optimizers, unwrapped_optimizers
from revacnn_lightning.steering.journal import Journal, JournalEntry
from revacnn_lightning.steering.planning.context import PlanningContext
from revacnn_lightning.steering.planning.layer_costs import LayerCostAndSize, layer_costs_and_sizes
from revacnn_lightning.steering.planning.plan import EditPlan
from revacnn_lightning.steering.planning.planner import make_plan
from revacnn_lightning.steering.planning.refusals import why_layer_not_resizable
from revacnn_lightning.steering.planning.single_filter import (
    is_untraceable_single_filter,
    plan_single_growth,
)
from revacnn_lightning.steering.tentative_edits import TentativeEdits
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.steering.tracing.forward_probe import ForwardFailedError, ForwardProbe
from revacnn_lightning.steering.tracing.garbage_collection import paused_garbage_collection
from revacnn_lightning.steering.tracing.raising_module import raising_module_name
from revacnn_lightning.steering.tracing.traced_forwards import trace_channel_groups
from revacnn_lightning.steering.undo import plan_redo, plan_undo

__all__ = ["AppliedEdit", "Editor", "OptimizersAndCopies"]

GivenOptimizers = Sequence[Optimizer] | Callable[[], Sequence[Optimizer]]


@dataclass
class AppliedEdit:
    """An edit that was applied.

    ``output_change`` is the relative change of the model's output on the verifying batch.
    """

    plan: EditPlan
    output_change: float | None
    seconds: float


@dataclass
class OptimizersAndCopies:
    """The optimizers and the copies of a model, which an edit changes together with it."""

    optimizers: list[Optimizer]
    copies: CopiesAndRestrictions


class Editor:
    """Changes the structure of ``model`` in place, together with its optimizers' state.

    Args:
        model: the model to edit.
        optimizers: the optimizers that train it, or a function that returns them. The function is
            called for every edit: training may replace its optimizers at any time.
        journal: the edits so far. If it has entries, ``model`` must be the model they were
            replayed on.
        find_holders: a function that returns the objects that may hold optimizers or copies of the
            model, such as callbacks.
        copies: module -> the module that it is a copy of, or None if it is not a copy. It is for
            modules that `holders.copies` cannot recognize.
        initialize: a function that initializes the parameters of a module in place, as for
            ``nn.Module.apply``. New filters get the values that it draws.

    Attributes:
        peers: the processes that train replicas of the model, or None. An edit happens in all of
            them or in none. The others call `perform_planned`.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: GivenOptimizers = (),
        *,
        journal: Journal | None = None,
        find_holders: Callable[[], Sequence[CopyHolder]] = tuple,
        copies: Mapping[str, str | None] | None = None,
        initialize: Initialization | None = None,
    ) -> None:
        self.model = model
        self.journal = Journal() if journal is None else journal
        self._filters = FilterIds(model)
        for entry in self.journal.entries:
            self._filters.apply(entry.plan)
        self._rate_scaler = LayerLearningRateScaler(model, self._filters)
        self._freezer = Freezer(model, self._filters)
        self._young_entries = YoungEntryHooks(self._freezer.frozen_slices)
        self._given_optimizers = optimizers
        self._find_holders = find_holders
        self._initialize = initialize
        self._copies = CopyTracker(model, copies)
        all_of_now = self._all_optimizers()
        self._copies.remember(all_of_now)
        self._refresh_hooks(all_of_now)
        self._groups: ChannelGroups | None = None
        self._traced_version = -1
        self._traced_probe: weakref.ref[ForwardProbe] | None = None
        self._busy = False
        self.peers: Peers | None = None

    @property
    def version(self) -> int:
        """The structure version: the number of applied edits, undos and redos."""
        return self.journal.version

    @property
    def optimizers(self) -> list[Optimizer]:
        """The optimizers that train the model now. Assign others, or a function, to change them."""
        given = self._given_optimizers
        return unwrapped_optimizers(given() if callable(given) else given)

    @optimizers.setter
    def optimizers(self, optimizers: GivenOptimizers) -> None:
        self._given_optimizers = optimizers

    def close(self) -> None:
        """Remove the hooks of frozen and new filters and of rates from model and optimizers."""
        self._rate_scaler.release()
        self._freezer.release()
        self._young_entries.release()

    def refresh_hooks(self) -> None:
        """Register the hooks of frozen and new filters and of rates again, after `close`."""
        self._refresh_hooks(self._all_optimizers())

    @contextmanager
    def tentative_edits(self) -> Iterator[TentativeEdits]:
        """Revert the edits that are applied inside, unless they are kept; see `TentativeEdits`.

        Undo and redo must not be requested inside.
        """
        edits = TentativeEdits(self.model, self.journal, self._filters)
        known = self._groups, self._traced_version, self._traced_probe
        try:
            yield edits
        finally:
            if edits.must_revert:
                self.close()
                optimizers = self._all_optimizers()
                edits.revert(optimizers)
                self._groups, self._traced_version, self._traced_probe = known
                self._copies.restart()
                self._refresh_hooks(optimizers)

    def _refresh_hooks(self, optimizers: Sequence[Optimizer]) -> None:
        # In this order: what a step should be, a share of that, and nothing for frozen filters.
        self._young_entries.refresh(optimizers)
        self._rate_scaler.refresh(optimizers)
        self._freezer.refresh(optimizers)

    @property
    def has_copies(self) -> bool:
        """Whether the model, its optimizers or a callback holds copies of it, such as averages."""
        found = self._find_involved().copies
        return bool(found.copies or found.restrictions)

    def adopt_replaced_layers(self) -> None:
        """Adopt layers that the user's code has replaced, added or removed.

        Earlier edits can no longer be undone: what they have removed may not fit the new layers.
        """
        self._groups, self._traced_version = None, -1
        self._filters.forget_replaced()
        self.journal.forget_records()
        optimizers = self._all_optimizers()
        self._rate_scaler.refresh(optimizers)
        self._freezer.refresh(optimizers)

    # ---------------------------------------------------------------- inspecting

    def filter_ids(self, layer: str) -> list[int]:
        """Return the permanent ids of a conv's filters, by index."""
        return self._filters.ids_of(layer)

    def frozen_filters(self, layer: str) -> list[int]:
        """Return the indices of a conv's frozen filters."""
        return self._filters.frozen_indices(layer)

    def learning_rate_factor(self, layer: str) -> float:
        """Return what the learning rate of a layer's optimizer is multiplied by."""
        return self._filters.rates.get(layer, 1.0)

    @property
    def is_traced(self) -> bool:
        """Whether the present structure is traced already, so that planning needs no forward."""
        return self._groups is not None and self._traced_version == self.version

    @property
    def traced_groups(self) -> ChannelGroups | None:
        """The channel groups of the present structure, if it is traced."""
        return self._groups if self.is_traced else None

    def channel_groups(self, probe: ForwardProbe) -> ChannelGroups:
        """Return the channel groups, traced with the probe's forwards once per version.

        They are traced again if that probe left out layers and this is another one.

        Raises:
            EditRefusedError: the model's forward raised.
        """
        if self._groups is None or not self.is_traced or self._may_show_more(probe):
            try:
                self._groups = trace_channel_groups(self.model, probe)
            except ForwardFailedError as error:
                raise EditRefusedError(f"{error}; nothing was changed{error.hint}") from error
            self._traced_version, self._traced_probe = self.version, weakref.ref(probe)
        return self._groups

    def _may_show_more(self, probe: ForwardProbe) -> bool:
        """Return whether the forwards of another batch may run layers that were not traced."""
        groups = self._groups
        is_complete = groups is None or not (groups.untraced or groups.unused)
        is_other = self._traced_probe is None or self._traced_probe() is not probe
        return not is_complete and is_other and bool(probe.forwards)

    def edges(self, probe: ForwardProbe) -> list[tuple[str, str]]:
        """Return (conv, conv) pairs: the filters of the first feed the second."""
        return list(self.channel_groups(probe).edges)

    def layer_costs_and_sizes(self, probe: ForwardProbe) -> dict[str, LayerCostAndSize]:
        """Return what each layer that the forwards call costs and returns."""
        return layer_costs_and_sizes(self.channel_groups(probe), self.model)

    def refusals(self, probe: ForwardProbe) -> dict[str, str]:
        """Return conv -> why no filter can be added or removed there. Editable convs are absent.

        So are those of a single filter: only a plan finds out whether another one can be added.
        """
        groups = self.channel_groups(probe)
        convs = [*groups.filters, *groups.untraced]
        convs += [
            x for x in groups.unlabeled if not is_untraceable_single_filter(self.model, groups, x)
        ]
        copies = self._find_involved().copies.registered
        reasons = {
            layer: why_layer_not_resizable(groups, layer) or why_copy_not_resizable(layer, copies)
            for layer in convs
        }
        return {layer: reason for layer, reason in reasons.items() if reason}

    def plan(
        self, request: requests.Edit, probe: ForwardProbe, version: int | None = None
    ) -> EditPlan:
        """Return what the request would do. Changes nothing.

        Raises:
            StaleStructureError: the request was made for another structure ``version``.
            EditRefusedError: it cannot be carried out; the message says why.
        """
        with self._one_at_a_time(), only_steering_errors(EditRefusedError):
            involved = self._find_involved()
            plan = self._plan(request, probe, version, involved)
            if plan.is_mixing:
                self._measure_change(plan, probe, involved)
        return plan

    def _measure_change(
        self, plan: EditPlan, probe: ForwardProbe, involved: OptimizersAndCopies
    ) -> None:
        """Add to a plan by how much it changes the output on the probe's batch.

        Raises:
            EditRefusedError: the edit would fail.
        """
        with Transaction() as tx:
            try:
                change = self._perform_in(tx, plan, probe, involved).output_change
            except EditFailedError as error:
                raise EditRefusedError(str(error)) from error
            tx.rollback()
        plan.output_effect = f"output changes by {change:.2g} of its largest value on this batch"
        if is_rounding(change):  # as with a spectral norm, whose power iteration follows later
            plan.output_effect = "output changes from the next batch on"
        plan.confirmation += f". The {plan.output_effect}"

    def _check_confirmed(
        self, plan: EditPlan, probe: ForwardProbe, involved: OptimizersAndCopies
    ) -> None:
        """Check that what a plan says to confirm was confirmed in its request.

        Raises:
            EditRefusedError: it was not.
        """
        if plan.confirmation and not getattr(plan.request, "confirmed", False):
            if plan.is_mixing:
                self._measure_change(plan, probe, involved)
            kind = type(plan.request).__name__
            raise EditRefusedError(
                f"{plan.confirmation}. To do it nevertheless, confirm the change: "
                f"{kind}(..., confirmed=True)"
            )

    def _plan(
        self,
        request: requests.Edit,
        probe: ForwardProbe,
        version: int | None,
        involved: OptimizersAndCopies,
    ) -> EditPlan:
        copies = involved.copies
        self._check_version(version)
        if isinstance(request, (requests.Undo, requests.Redo)):
            return self._plan_again(request, probe, copies)
        check_not_a_copy(request, copies.registered)
        context = PlanningContext(
            self.model,
            self.channel_groups(probe),
            involved.optimizers,
            self.frozen_filters,
            [copy.path for copy in copies.registered],
            self.learning_rate_factor,
        )
        if isinstance(request, requests.AddFilters) and is_untraceable_single_filter(
            self.model, context.groups, request.layer
        ):
            plan = plan_single_growth(context, request, probe)
        else:
            plan = make_plan(context, request)
        check_copies_editable(plan, copies.copies, copies.restrictions)
        add_copy_edits(context, plan, copies.copies)
        return plan

    def _check_version(self, version: int | None) -> None:
        if version is not None and version != self.version:
            raise StaleStructureError(
                f"the request was made for structure {version}, but the network is at "
                f"{self.version} now; refresh and repeat the request"
            )

    def _plan_again(
        self,
        request: requests.Undo | requests.Redo,
        probe: ForwardProbe,
        copies: CopiesAndRestrictions,
    ) -> EditPlan:
        """Return the summary of an undo or redo."""

        def groups() -> ChannelGroups:
            return self.channel_groups(probe)

        newest: Sequence[JournalEntry | UndoneEdit]
        if isinstance(request, requests.Undo):
            plan = plan_undo(request, self.journal, self.model, groups)
            newest = self.journal.entries[-request.count :]
        else:
            plan = plan_redo(request, self.journal, self.model, groups)
            newest = self.journal.undone[-request.count :]
        for edit in newest:
            check_copies_editable(edit.plan, copies.copies, copies.restrictions)
        return plan

    def _find_involved(self) -> OptimizersAndCopies:
        optimizers = self._all_optimizers()
        return OptimizersAndCopies(optimizers, self._copies.find(optimizers, self._find_holders()))

    @property
    def all_optimizers(self) -> list[Optimizer]:
        """The present optimizers, then those that the model, a callback or an optimizer holds."""
        return self._all_optimizers()

    def _all_optimizers(self) -> list[Optimizer]:
        """Return the present optimizers, then those that the model or a callback holds."""
        return all_optimizers(self.model, self.optimizers, self._find_holders())

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
        with (
            self._one_at_a_time(),
            only_steering_errors(EditFailedError),
            paused_garbage_collection(),
        ):
            involved = self._find_involved()
            plan = self._plan(request, probe, version, involved)
            self._check_confirmed(plan, probe, involved)
            with Transaction() as tx:
                performed = self._perform_in(tx, plan, probe, involved)
                self._find_norms(performed)
                if self.peers is not None:
                    self.peers.announce(performed.plan)
                    plans = self._plans_of(performed.plan)
                    perform_and_agree(self.peers, self.model, lambda: involved.optimizers, plans)
            self._commit(performed, involved.optimizers)
        return AppliedEdit(performed.plan, performed.output_change, perf_counter() - start)

    def perform_planned(self, plan: EditPlan, make_probe: Callable[[], ForwardProbe]) -> None:
        """Perform what the editor of another process has planned; all `peers` do, or none.

        Args:
            plan: what that editor has performed.
            make_probe: makes the forwards that verify it, on the data of this process.

        Raises:
            EditFailedError: it failed in one of the processes; everything was rolled back in all.
        """
        assert self.peers is not None
        with only_steering_errors(EditFailedError), paused_garbage_collection():
            done: list[tuple[ReplicaEditExecution, PerformedEdit]] = []

            def perform() -> None:
                edits = self._application(tx, make_probe(), self._find_involved())
                replica = ReplicaEditExecution(edits, plan)
                done.append((replica, self._perform(edits, plan, replica)))

            def verify() -> None:
                [(replica, performed)] = done
                replica.verify(performed)

            with Transaction() as tx:
                plans = self._plans_of(plan)
                perform_and_agree(
                    self.peers, self.model, self._all_optimizers, plans, perform, verify
                )
            self._commit(done[0][1], self._all_optimizers())

    def _plans_of(self, plan: EditPlan) -> list[EditPlan]:
        """Return the plans whose changes a plan performs or reverts, such as those of an undo."""
        if isinstance(plan.request, requests.Undo):
            return [entry.plan for entry in self.journal.entries[-plan.request.count :]]
        if isinstance(plan.request, requests.Redo):
            return [edit.plan for edit in self.journal.undone[-plan.request.count :]]
        return [plan]

    def _perform_in(
        self, tx: Transaction, plan: EditPlan, probe: ForwardProbe, involved: OptimizersAndCopies
    ) -> PerformedEdit:
        """Perform a plan; the rollback is up to ``tx``.

        Raises:
            EditFailedError: its verification failed.
        """
        try:
            return self._perform(self._application(tx, probe, involved), plan)
        except ForwardFailedError as error:
            module = raising_module_name(self.model, error)
            where = f" in {module}" if module else ""
            raise EditFailedError(
                f"{error}{where} after the edit; the edit was rolled back{error.hint}"
            ) from error

    def _application(
        self, tx: Transaction, probe: ForwardProbe, involved: OptimizersAndCopies
    ) -> EditApplication:
        return EditApplication(
            tx,
            self.model,
            involved.optimizers,
            probe,
            self.version + 1,
            involved.copies.outside,
            self._initialize,
        )

    def _perform(
        self, edits: EditApplication, plan: EditPlan, replica: ReplicaEditExecution | None = None
    ) -> PerformedEdit:
        groups = ParamGroupMembershipCheck(self.model, edits.optimizers)
        if isinstance(plan.request, requests.Undo):
            newest = self.journal.entries[-plan.request.count :]
            performed = edits.revert(plan, [(e.plan, e.undo) for e in newest if e.undo is not None])
        elif isinstance(plan.request, requests.Redo):
            performed = edits.redo(plan, self.journal.undone[: -plan.request.count - 1 : -1])
        elif replica is not None:
            performed = replica.perform()
        else:
            performed = edits.perform(plan, self.channel_groups(edits.probe))
        groups.check(new_are_trained=not isinstance(plan.request, requests.Undo))
        return performed

    def _find_norms(self, performed: PerformedEdit) -> None:
        """Note in a plan that changes layers which norms belong to frozen and to scaled layers."""
        if performed.plan.layers and performed.channel_groups is not None:
            norm_after = performed.channel_groups.norm_after
            performed.plan.norms = {
                layer: sorted(norm_after.get(layer, ()))
                for layer in {**self._filters.frozen, **self._filters.rates}
            }

    def _commit(self, performed: PerformedEdit, optimizers: Sequence[Optimizer]) -> None:
        """Record a verified edit. Nothing in here may fail."""
        plan, undo = performed.plan, performed.undo
        if isinstance(plan.request, requests.Undo):
            self.journal.record_undone(performed.undone)
            for _ in performed.undone:
                self._filters.revert()
        elif isinstance(plan.request, requests.Redo):
            self.journal.record_redone(performed.redone)
            for entry in self.journal.entries[-len(performed.redone) :]:
                self._filters.redo(entry.plan)
        elif undo is not None:
            undo.groups_before = self._groups
            self._filters.apply(plan)
            self.journal.append(plan, undo)
        edited_models.remember_edits(self.model, self.journal)
        self._refresh_hooks(optimizers)
        self._copies.restart()
        self._groups, self._traced_version = performed.channel_groups, self.version
        if plan.tensors or plan.layers or plan.freezes or undo is None:
            reset_compiled_code()

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
