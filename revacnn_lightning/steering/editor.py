"""`Editor`: plan, apply, verify, journal, undo - the one door to changing a model.

An edit is exact or it does not happen. `Editor.apply` plans it (refusing with a reason before
anything is touched), performs it in a transaction, verifies it with real forwards, and only then
writes it into the journal; whatever fails on the way takes everything back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from revacnn_lightning.errors import EditFailed, Refused, StaleStructure
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import planning, verify
from revacnn_lightning.steering.channels import Channels
from revacnn_lightning.steering.filters import FilterIds
from revacnn_lightning.steering.journal import Journal, perform
from revacnn_lightning.steering.plan import EditPlan
from revacnn_lightning.steering.probe import ForwardRaised, Probe, evaluate, relative_change, trace
from revacnn_lightning.steering.surgery import Record
from revacnn_lightning.steering.transaction import Transaction

__all__ = ["Editor", "Outcome"]


@dataclass
class Outcome:
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
        self.optimizers: list[Optimizer] = list(optimizers)
        self.journal = Journal() if journal is None else journal
        self._filters = FilterIds(model)
        for entry in self.journal.entries:
            self._filters.apply(entry.plan)
        self._channels: Channels | None = None
        self._traced_version = -1
        self._busy = False

    @property
    def version(self) -> int:
        """Raised by one with every applied edit or undo."""
        return self.journal.version

    # ---------------------------------------------------------------- looking

    def filter_ids(self, layer: str) -> list[int]:
        """The ids for life of a conv's filters, by index."""
        return self._filters.of(layer)

    def frozen_filters(self, layer: str) -> list[int]:
        """The indices of a conv's frozen filters."""
        return self._filters.frozen_indices(layer)

    def channels(self, probe: Probe) -> Channels:
        """What belongs with what, traced with the probe's forwards once per version.

        Raises:
            Refused: the model's forward raised.
        """
        if self._channels is None or self._traced_version != self.version:
            try:
                self._channels = trace(self.model, probe)
            except ForwardRaised as error:
                raise Refused(f"{error}; nothing was changed") from error
            self._traced_version = self.version
        return self._channels

    def edges(self, probe: Probe) -> list[tuple[str, str]]:
        """(conv, conv) pairs: the filters of the first feed the second."""
        return list(self.channels(probe).edges)

    def refusals(self, probe: Probe) -> dict[str, str]:
        """Conv -> why no filter can be added or removed there. Editable convs are absent."""
        channels = self.channels(probe)
        convs = [*channels.filters, *channels.untraced]
        reasons = {layer: planning.refusal(channels, layer) for layer in convs}
        return {layer: reason for layer, reason in reasons.items() if reason}

    def plan(self, request: requests.Edit, probe: Probe, version: int | None = None) -> EditPlan:
        """What the request would do. Touches nothing.

        Raises:
            StaleStructure: the request was made for another ``version``.
            Refused: it cannot be done; the message says why.
        """
        if version is not None and version != self.version:
            raise StaleStructure(
                f"the request was made for structure {version}, the network is at "
                f"{self.version}; look again and repeat it"
            )
        context = planning.Context(self.model, self.channels(probe), self.optimizers)
        return planning.make_plan(context, request)

    # ---------------------------------------------------------------- changing

    def apply(self, request: requests.Edit, probe: Probe, version: int | None = None) -> Outcome:
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
                    plan, records, change, after = self._resize(tx, plan, probe)
                except ForwardRaised as error:
                    raise EditFailed(f"{error} after the edit; it was taken back") from error
            self._filters.apply(plan)
            self.journal.append(plan, records)
            self._channels, self._traced_version = after, self.version
        return Outcome(plan, change, perf_counter() - start)

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        if self._busy:
            raise Refused("another edit is being applied; repeat the request when it is done")
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    def _generator(self) -> torch.Generator:
        """Randomness of its own for each edit, so that training's is untouched."""
        return torch.Generator().manual_seed(self.version + 1)

    def _resize(
        self, tx: Transaction, plan: EditPlan, probe: Probe
    ) -> tuple[EditPlan, list[Record], float, Channels]:
        """Perform a plan of values and sizes, settle its placement, and verify it."""
        before = self.channels(probe)
        was = evaluate(self.model, probe)
        expected = verify.expected(tx, self.model, plan, probe, was, self._generator())
        start = tx.size
        records = perform(tx, self.model, plan, self.optimizers, self._generator())
        watched = verify.fresh_rows(plan)
        after = trace(self.model, probe, watched)
        settled = verify.settled(before, after, plan)
        if settled is not plan:
            tx.rollback(keep=start)
            plan = settled
            records = perform(tx, self.model, plan, self.optimizers, self._generator())
        after = verify.bring_to_life(tx, self.model, plan, probe, after, self._generator())
        now = evaluate(self.model, probe)
        if not before_mixed(before, plan):
            verify.check(tx, self.model, probe, now, expected, after.epsilon)
        return plan, records, _change(now, was), after


def before_mixed(channels: Channels, plan: EditPlan) -> bool:
    """Whether the edited channels are normalised together, so that no output is expected."""
    classes = {
        c
        for move in plan.filters
        for c in channels.classes(move.layer, verify.removed_filters(move))
    }
    return bool(channels.mixed(classes))


def _change(now: Sequence[Tensor], was: Sequence[Tensor]) -> float:
    return relative_change(now, was)
