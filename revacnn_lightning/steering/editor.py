"""`Editor`: plan, apply, verify, journal, undo - the one door to changing a model.

An edit is exact or it does not happen. `Editor.apply` plans it (refusing with a reason before
anything is touched), performs it in a transaction, verifies it with real forwards, and only then
writes it into the journal; whatever fails on the way takes everything back.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import nn
from torch.optim import Optimizer

from revacnn_lightning.errors import EditFailedError, EditRefusedError, StaleStructureError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import planning as planners
from revacnn_lightning.steering.execution import verify
from revacnn_lightning.steering.execution.freezing import Freezer
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.filter_ids import FilterIds
from revacnn_lightning.steering.journal import Journal, UndoRecord, perform, revert
from revacnn_lightning.steering.planning.macs import macs_of
from revacnn_lightning.steering.planning.plan import EditPlan
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.steering.tracing.forward_probe import (
    ForwardFailedError,
    ForwardProbe,
    evaluate,
    relative_change,
    trace,
)

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
    on. ``optimizers`` may be set again at any time (a resumed run makes new ones).
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
        self._channels: ChannelGroups | None = None
        self._traced_version = -1
        self._busy = False

    @property
    def version(self) -> int:
        """Raised by one with every applied edit or undo."""
        return self.journal.version

    @property
    def optimizers(self) -> list[Optimizer]:
        """Those that train the model. To change them, set the list anew."""
        return self._optimizers

    @optimizers.setter
    def optimizers(self, optimizers: Sequence[Optimizer]) -> None:
        self._optimizers = list(optimizers)
        self._freezer.refresh(self._optimizers)

    def close(self) -> None:
        """Take every hook of frozen filters off the model and its optimizers."""
        self._freezer.release()

    # ---------------------------------------------------------------- looking

    def filter_ids(self, layer: str) -> list[int]:
        """The ids for life of a conv's filters, by index."""
        return self._filters.of(layer)

    def frozen_filters(self, layer: str) -> list[int]:
        """The indices of a conv's frozen filters."""
        return self._filters.frozen_indices(layer)

    @property
    def is_traced(self) -> bool:
        """Whether `channels` is known of the network as it is now: planning takes no forward."""
        return self._channels is not None and self._traced_version == self.version

    def channels(self, probe: ForwardProbe) -> ChannelGroups:
        """What belongs with what, traced with the probe's forwards once per version.

        Raises:
            Refused: the model's forward raised.
        """
        if self._channels is None or not self.is_traced:
            try:
                self._channels = trace(self.model, probe)
            except ForwardFailedError as error:
                raise EditRefusedError(f"{error}; nothing was changed") from error
            self._traced_version = self.version
        return self._channels

    def edges(self, probe: ForwardProbe) -> list[tuple[str, str]]:
        """(conv, conv) pairs: the filters of the first feed the second."""
        return list(self.channels(probe).edges)

    def refusals(self, probe: ForwardProbe) -> dict[str, str]:
        """Conv -> why no filter can be added or removed there. Editable convs are absent."""
        channels = self.channels(probe)
        convs = [*channels.filters, *channels.untraced, *channels.unlabelled]
        reasons = {layer: planners.filters.refusal(channels, layer) for layer in convs}
        return {layer: reason for layer, reason in reasons.items() if reason}

    def plan(
        self, request: requests.Edit, probe: ForwardProbe, version: int | None = None
    ) -> EditPlan:
        """What the request would do. Touches nothing.

        Raises:
            StaleStructure: the request was made for another ``version``.
            Refused: it cannot be done; the message says why.
        """
        if version is not None and version != self.version:
            raise StaleStructureError(
                f"the request was made for structure {version}, the network is at "
                f"{self.version}; look again and repeat it"
            )
        if isinstance(request, requests.Undo):
            return self._plan_undo(request, probe)
        context = planners.Context(
            self.model, self.channels(probe), self.optimizers, self.frozen_filters
        )
        return planners.make_plan(context, request)

    def _plan_undo(self, request: requests.Undo, probe: ForwardProbe) -> EditPlan:
        possible = self.journal.undoable
        if request.count < 1:
            raise EditRefusedError(
                f"the number of edits to undo is {request.count}; it must be at least 1"
            )
        if request.count > possible:
            raise EditRefusedError(f"{request.count} edits cannot be undone; {possible} can")
        entries = self.journal.entries[-request.count :]
        now = sum(p.numel() for p in self.model.parameters())
        then = now - sum(e.plan.parameters_after - e.plan.parameters_before for e in entries)
        # Of an edit that an earlier version of this package planned, they were not written down.
        known = all(entry.plan.macs_before for entry in entries)
        macs = macs_of(self.channels(probe)) if known else 0
        titles = [entry.plan.title for entry in reversed(entries)]
        return EditPlan(
            request,
            f"Undo: {'; '.join(titles)}",
            parameters_before=now,
            parameters_after=then,
            macs_before=macs,
            macs_after=macs - sum(e.plan.macs_after - e.plan.macs_before for e in entries),
        )

    # ---------------------------------------------------------------- changing

    def apply(
        self, request: requests.Edit, probe: ForwardProbe, version: int | None = None
    ) -> AppliedEdit:
        """Carry the request out, verified, or not at all.

        Raises:
            Refused: it cannot be done; nothing was touched.
            EditFailed: it did not pass its verifying forward; everything was taken back.
        """
        start = perf_counter()
        with self._one_at_a_time():
            plan = self.plan(request, probe, version)
            with Transaction() as tx:
                try:
                    done = self._carry_out(tx, plan, probe)
                except ForwardFailedError as error:
                    raise EditFailedError(f"{error} after the edit; it was taken back") from error
            self._commit(done)
        return AppliedEdit(done.plan, done.change, perf_counter() - start)

    def _carry_out(self, tx: Transaction, plan: EditPlan, probe: ForwardProbe) -> _Done:
        if isinstance(plan.request, requests.Undo):
            return self._undo(tx, plan, probe)
        if plan.tensors:
            return self._resize(tx, plan, probe)
        if plan.layers:
            return self._change_layers(tx, plan, probe)
        if plan.values:
            return self._change_values(tx, plan, probe)
        return _Done(plan, UndoRecord(), 0.0, self.channels(probe))  # freezing touches no tensor

    def _commit(self, done: _Done) -> None:
        """Write down what passed. From here on nothing fails."""
        if done.taken is None:
            for _ in range(done.undone):
                self.journal.entries.pop()
                self._filters.revert()
            self.journal.version += 1
        else:
            done.taken.channels = self._channels
            self._filters.apply(done.plan)
            self.journal.append(done.plan, done.taken)
        self._freezer.refresh(self.optimizers)
        self._channels, self._traced_version = done.channels, self.version
        if done.plan.layers or done.plan.freezes or done.taken is None:
            _forget_compiled()

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        if self._busy:
            raise EditRefusedError(
                "another edit is being applied; repeat the request when it is done"
            )
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    def _generator(self) -> torch.Generator:
        """Randomness of its own for each edit, so that training's is untouched."""
        return torch.Generator().manual_seed(self.version + 1)

    # ---------------------------------------------------------------- the kinds of edits

    def _resize(self, tx: Transaction, plan: EditPlan, probe: ForwardProbe) -> _Done:
        """Perform a plan of values and sizes, settle its placement, and verify it."""
        before = self.channels(probe)
        was = evaluate(self.model, probe)
        expected = verify.expected(tx, self.model, plan, probe, was, self._generator())
        start = tx.size
        taken = perform(tx, self.model, plan, self.optimizers, self._generator())
        after = trace(self.model, probe, verify.random_rows(plan))
        settled = verify.settled(before, after, plan)
        if settled is not plan:
            tx.rollback(keep=start)
            plan = settled
            taken = perform(tx, self.model, plan, self.optimizers, self._generator())
        after = verify.redraw_silent_filters(tx, self.model, plan, probe, after, self._generator())
        now = evaluate(self.model, probe)
        if not verify.is_mixed(before, plan):
            verify.check(tx, self.model, probe, now, expected, after.epsilon)
        return _Done(plan, taken, relative_change(now, was), after)

    def _change_layers(self, tx: Transaction, plan: EditPlan, probe: ForwardProbe) -> _Done:
        """Insert a block, which keeps the function, or take a layer out, which does not."""
        was = evaluate(self.model, probe)
        taken = perform(tx, self.model, plan, self.optimizers, self._generator())
        with verify.unused(taken.layers):
            after = trace(self.model, probe)
            now = evaluate(self.model, probe)
        verify.check_shapes(now, was)
        if all(layer.action == "insert" for layer in plan.layers):
            verify.check(tx, self.model, probe, now, was, after.epsilon)
        plan.norms = {n: sorted(after.norm_after.get(n, ())) for n in self._filters.frozen}
        return _Done(plan, taken, relative_change(now, was), after)

    def _change_values(self, tx: Transaction, plan: EditPlan, probe: ForwardProbe) -> _Done:
        was = evaluate(self.model, probe)
        taken = perform(tx, self.model, plan, self.optimizers, self._generator())
        now = evaluate(self.model, probe)
        verify.check_shapes(now, was)
        return _Done(plan, taken, relative_change(now, was), self.channels(probe))

    def _undo(self, tx: Transaction, plan: EditPlan, probe: ForwardProbe) -> _Done:
        assert isinstance(plan.request, requests.Undo)
        count = plan.request.count
        known = self.journal.entries[-count].taken
        was = evaluate(self.model, probe)
        for entry in reversed(self.journal.entries[-count:]):
            assert entry.taken is not None
            revert(tx, self.model, entry.plan, self.optimizers, entry.taken)
        now = evaluate(self.model, probe)
        verify.check_shapes(now, was)
        after = known.channels if known is not None else None
        if after is None:
            after = trace(self.model, probe)
        return _Done(plan, None, relative_change(now, was), after, undone=count)


@dataclass
class _Done:
    """An edit that was performed and has passed. ``taken`` is None for an undo."""

    plan: EditPlan
    taken: UndoRecord | None
    change: float
    channels: ChannelGroups
    undone: int = 0


def _forget_compiled() -> None:
    """Compiled code does not see hooks and layers that come and go; let it be compiled anew."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None:
        dynamo.reset()
