"""Prunes a network to a budget: the cheapest filters of all layers, a few every few batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.automatic_state import PruningState
from revacnn_lightning.protocol.messages import Applied, Refused, Reply
from revacnn_lightning.protocol.requests import (
    ControlPruning,
    PruneTo,
    RemoveFilters,
    RequestBody,
    Undo,
)
from revacnn_lightning.runtime.batch import TrainingBatch
from revacnn_lightning.runtime.filter_prices import FilterPriceCollector
from revacnn_lightning.runtime.loss_replay import LossReplay
from revacnn_lightning.runtime.pruning_choice import (
    LayerRemoval,
    Measure,
    find_removal_candidates,
    group_candidates_by_layer,
    size_before_and_after_edit,
    take_cheapest,
)
from revacnn_lightning.runtime.removal_prices import LossChangeMeasurer
from revacnn_lightning.runtime.request_queue import PendingRequest
from revacnn_lightning.steering import Editor
from revacnn_lightning.steering.journal import JournalEntry
from revacnn_lightning.telemetry import Recorder

__all__ = ["Pruning"]

RANKED_BATCHES = 5  # before a round, that rank the filters; fewer if rounds are closer

WAITING = "waiting for the statistics of a few batches"
REACHED = "the target is reached"
UNDONE = "an edit of it was undone"
NONE_LEFT = "no filter is left that can be removed"
NO_MACS = "the multiply-accumulates of this network are not known; use parameters"

Submit = Callable[[RequestBody], PendingRequest]


@dataclass(frozen=True)
class _Edit:
    """An applied edit; ``before`` is the size of the network before it."""

    entry: JournalEntry
    removed: int
    cost: float
    before: int


class Pruning:
    """Executes `PruneTo`. It submits its edits like any other client, one before each batch.

    The batches that rank the filters of a round are those right before it. They are recorded
    whatever that costs. Between the rounds, nothing is recorded for it.

    Args:
        recorder: knows the layers.
        editor: makes plans, and has the journal.
        ranking: ranks the filters.
        prices: measure what removing a filter costs.
        replay: computes the loss.
        submit: queues an edit, for the present structure.

    Attributes:
        state: the published state of the pruning; None before the first request.
    """

    def __init__(
        self,
        recorder: Recorder,
        editor: Editor,
        ranking: FilterPriceCollector,
        prices: LossChangeMeasurer,
        replay: LossReplay,
        submit: Submit,
    ) -> None:
        self._recorder = recorder
        self._editor = editor
        self._ranking = ranking
        self._prices = prices
        self._replay = replay
        self._submit = submit
        self.state: PruningState | None = None
        self._request = PruneTo()
        self._due_at = 0  # batch
        self._queue: list[LayerRemoval] = []
        self._pending: tuple[LayerRemoval | None, PendingRequest] | None = None  # None: an undo
        self._applied: JournalEntry | None = None  # of the edit whose reply is to be received
        self._has_progressed = True  # whether the last round has removed a filter
        self._edits: list[_Edit] = []

    @property
    def is_running(self) -> bool:
        """Whether filters are removed, so that batches must be recorded."""
        return self.state is not None and self.state.state == "running"

    @property
    def has_pending(self) -> bool:
        """Whether an edit waits for its reply."""
        return self._pending is not None

    def start(self, request: PruneTo, step: int) -> str:
        """Start to prune; return what will happen, in words.

        Raises:
            EditRefusedError: not exactly one target is given, or another pruning is not over.
        """
        if (request.macs is None) == (request.parameters is None):
            raise EditRefusedError("give one target: PruneTo(macs=0.5) or PruneTo(parameters=0.5)")
        if self.state is not None and self.state.state != "ended":
            raise EditRefusedError("the network is being pruned already; end that first")
        measure: Measure = "parameters" if request.macs is None else "macs"
        share = request.parameters if request.macs is None else request.macs
        assert share is not None
        self._request, self._due_at, self._has_progressed = request, step + request.every, True
        self._queue, self._edits = [], []
        self.state = PruningState("running", measure, share)
        return f"Pruning to {share:.0%} of the {measure.replace('macs', 'MACs')}"

    def control(self, command: ControlPruning) -> str:
        """Pause, resume, end or undo the pruning; return what was done, in words.

        Raises:
            EditRefusedError: there is nothing to do that with.
        """
        state = self.state
        if state is None:
            raise EditRefusedError("the network was not pruned to a budget in this run")
        if command.action == "undo":
            return self._undo()
        if state.state == "ended":
            raise EditRefusedError("the pruning has ended already")
        self._queue = []
        if command.action == "end":
            self._set("ended", "on request")
            return "The pruning has ended"
        is_pause = command.action == "pause"
        self._set("paused" if is_pause else "running", "")
        return "The pruning is paused" if is_pause else "The pruning continues"

    def stop(self, reason: str) -> None:
        """End the pruning, if there is one."""
        self._queue, self._pending = [], None
        self._ranking.end_ranking()
        if self.state is not None:
            self._set("ended", reason)

    def _undo(self) -> str:
        journal = self._editor.journal
        count = 0
        for entry in reversed(journal.entries[-journal.undoable :] if journal.undoable else []):
            if not any(entry is one.entry for one in self._edits):
                break
            count += 1
        self._queue = []
        if not count:
            raise EditRefusedError("no edit of the pruning is the newest one that can be undone")
        self._pending = None, self._submit(Undo(count))
        self._set("ended", f"{count} of {len(self._edits)} edits undone")
        return f"Undoing {count} of {len(self._edits)} edits of the pruning"

    # ---------------------------------------------------------------- a batch

    def advance(self, batch: TrainingBatch, version: int) -> None:
        """Do what is due before a batch: submit an edit, or choose the filters of the next round.

        Args:
            batch: the next one.
            version: structure version that the messages have.
        """
        self._receive_reply()
        if self._forget_undone() and self.is_running:
            self._queue = []
            self._set("paused", UNDONE)
        if not self.is_running or self._pending is not None:
            return
        n_ranked = min(RANKED_BATCHES, self._request.every)
        if not self._queue and batch.step >= self._due_at - n_ranked:
            self._ranking.begin_ranking(batch.step)
            self._replay.request_recording()
        if self.is_due(batch.step):
            self._choose(batch, version, n_ranked)
        if self._queue and self.is_running:
            self._submit_next()

    def is_due(self, step: int) -> bool:
        """Return whether a round is due before this batch."""
        is_idle = not self._queue and self._pending is None
        return self.is_running and is_idle and step >= self._due_at

    def _choose(self, batch: TrainingBatch, version: int, n_ranked: int) -> None:
        """Choose the filters of a round, if enough is known."""
        ranking = self._ranking.ranked_filters(n_ranked)
        if not (ranking and batch.is_loss_ready()):
            self._note(WAITING)
            return
        state, layers = self.state, self._recorder.layers
        assert state is not None
        candidates = find_removal_candidates(
            ranking, layers, state.measure, self._request.filters, (batch.step, version),
            self._editor, batch.make_probe(), self._prices,
        )  # fmt: skip
        if not candidates or not self._has_progressed:
            is_unknown = state.measure == "macs" and not state.start
            self._set("ended", NO_MACS if is_unknown and not candidates else NONE_LEFT)
            return
        self._note_size(candidates[0].size)
        widths = dict(zip(layers, self._recorder.widths, strict=True))
        assert self.state is not None
        chosen = take_cheapest(candidates, widths, self._request.filters, self.state.target)
        if self.state.now <= self.state.target:
            self._set("ended", REACHED)
            return
        self._queue = group_candidates_by_layer(chosen, layers, self._editor)
        self._has_progressed = False
        self._due_at = batch.step + self._request.every
        self._ranking.end_ranking()
        is_measured = not any(math.isnan(one.change) for one in candidates)
        self._note("" if is_measured else f"ranked only: {self._prices.note or 'not measured'}")

    def _submit_next(self) -> None:
        removal = self._queue.pop(0)
        ids = self._editor.filter_ids(removal.layer)
        filters = [ids.index(one) for one in removal.ids if one in ids]
        if filters:
            request = self._submit(RemoveFilters(removal.layer, filters))
            request.on_reply = self._remember_entry
            self._pending = removal, request

    def _remember_entry(self, reply: Reply) -> None:
        """Remember an applied edit: a person may undo it before the next batch."""
        if isinstance(reply, Applied):
            self._applied = self._editor.journal.entries[-1]

    def _receive_reply(self) -> None:
        if self._pending is None or self._pending[1].reply is None:
            return
        (removal, request), self._pending = self._pending, None
        reply, state, entry = request.reply, self.state, self._applied
        self._applied = None
        if isinstance(reply, Refused):
            self._note(reply.reason)
        if removal is None or state is None or entry is None or not isinstance(reply, Applied):
            return
        self._has_progressed = True
        n_removed = sum(len(one.filters) for one in reply.plan.filter_changes)
        before, now = size_before_and_after_edit(entry.plan, state.measure)
        self._edits.append(_Edit(entry, n_removed, removal.cost, before))
        self._note_edits(now)
        if now <= state.target:
            self._queue = []
            self._set("ended", REACHED)

    def _forget_undone(self) -> bool:
        """Forget the edits that were undone since; return whether there are any."""
        entries = {id(entry) for entry in self._editor.journal.entries}
        undone = [one for one in self._edits if id(one.entry) not in entries]
        if undone:
            self._edits = [one for one in self._edits if id(one.entry) in entries]
            self._note_edits(undone[0].before)
        return bool(undone)

    def _note_edits(self, size: int) -> None:
        """Note the edits that are in force, and the size of the network after them."""
        assert self.state is not None
        self.state = replace(
            self.state,
            now=size,
            removed=sum(one.removed for one in self._edits),
            edits=len(self._edits),
            cost=sum(one.cost for one in self._edits),
        )

    def _note_size(self, size: int) -> None:
        assert self.state is not None
        start = self.state.start or size
        target = int(start * self.state.share)
        self.state = replace(self.state, start=start, now=size, target=target)

    def _set(self, state: str, note: str) -> None:
        assert self.state is not None
        self.state = replace(self.state, state=state, note=note)
        if state != "running":
            self._ranking.end_ranking()

    def _note(self, note: str) -> None:
        assert self.state is not None
        self.state = replace(self.state, note=note)
