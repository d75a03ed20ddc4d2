"""What one browser tab has chosen, and what its buttons and keys do."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.messages import Layer, PlanSummary, RefusedReply, Structure
from revacnn_lightning.protocol.requests import Command as RunCommand
from revacnn_lightning.protocol.requests import Control, SetHyperparameter, Undo

from .company import Company
from .embedding import METHODS, Method
from .glyphs import Command, PageLink
from .hub import Hub
from .palette import DARK, Palette
from .playback import Playback
from .run_state import RequestRecord, RunState
from .staging import Staged, Staging

__all__ = ["Selection", "Tab"]

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 60.0  # a reply that takes longer no longer holds up the next request
CONTROLS = {
    "pause": "Pause",
    "resume": "Resume",
    "step": "Train one batch",
    "checkpoint": "Save a checkpoint",
    "stop": "Stop the training",
}
RATES = {"lr": "the learning rate", "weight_decay": "the weight decay"}
RECENT_ROWS = 8  # of the history, over which "least active" is judged
MOST_PICKED = 65536  # filters in one selection
PANES = ("layer", "maps", "statistics")  # of the right-hand side


class Selection(Struct, frozen=True):
    """The selected filter, by names that survive edits."""

    layer: str
    filter_id: int


class Arguments(Struct, frozen=True):
    """What may come with a command of the page; anything else is dropped."""

    layer: int | None = None
    first: int = -1
    last: int = -1
    dx: int = 0
    dy: int = 0
    at: int = -1
    by: str = ""
    optimizer: int = 0
    group: int = 0
    value: float = 0.0
    run: str = ""
    row: str = ""
    ids: Annotated[list[int], Meta(max_length=MOST_PICKED)] = []
    weights: Annotated[list[float], Meta(max_length=MOST_PICKED)] = []


class Tab:
    """State of one tab. ``touched`` is counted up with every change a component may show."""

    def __init__(self, hub: Hub, link: PageLink, palette: Palette = DARK) -> None:
        self.hub = hub
        self.link = link
        self.palette = palette
        self.selection: Selection | None = None
        self.staging = Staging()
        self.opened: set[str] = set()
        self.sort_by = "gradient"
        self.playback = Playback()
        self.method: Method = "tsne"
        self.pane = "layer"
        self.also: list[int] = []  # ids of the other selected filters of the selection's layer
        self.touched = 0
        self.reply: RequestRecord | None = None  # shown above the staging bar until dismissed
        self.error = ""  # why the last action could not even be sent
        self._queue: list[Staged] = []
        self._peeked: Selection | None = None  # what the pointer rests on
        self._company = Company()
        self._waiting = ""  # id of the request whose reply is awaited
        self._seen: tuple[RunState | None, int] = (None, 0)

    # The run

    @property
    def state(self) -> RunState | None:
        return self.hub.state

    @property
    def structure(self) -> Structure | None:
        return None if self.state is None else self.state.structure

    @property
    def busy(self) -> bool:
        """Whether an Apply is under way."""
        return bool(self._queue or self._waiting)

    def selected(self) -> tuple[int, int] | None:
        """Layer and index of the selected filter in the network as it is now."""
        structure = self.structure
        if self.selection is None or structure is None:
            return None
        for i, layer in enumerate(structure.layers):
            if layer.name == self.selection.layer and self.selection.filter_id in layer.ids:
                return i, layer.ids.index(self.selection.filter_id)
        return None

    def picked(self) -> list[int]:
        """Ids of all selected filters, the one that is described first."""
        here, structure = self.selected(), self.structure
        if here is None or structure is None or self.selection is None:
            return []
        there = set(structure.layers[here[0]].ids)
        others = [i for i in self.also if i in there and i != self.selection.filter_id]
        return [self.selection.filter_id, *others]

    # The moment that is shown

    def clock(self) -> tuple[float, ...]:
        """Changes whenever other numbers are to be shown than before."""
        return self.playback.clock(self.state)

    def news(self) -> tuple[object, ...]:
        """Changes with everything that a message of the training may have changed."""
        state = self.state
        if state is None:
            return (self.touched,)
        return (state, state.numbers, state.shape, state.talk, self.touched)

    def values(self) -> dict[str, np.ndarray]:
        """The statistics of every filter at the moment shown; NaN: it did not exist yet."""
        return self.playback.values(self.state)

    def layer_values(self, statistic: str, layer: int) -> np.ndarray:
        """One layer's part of `values`; empty if there is none."""
        values, state = self.values().get(statistic), self.state
        if values is None or state is None:
            return np.zeros(0, np.float32)
        return values[state.offsets[layer] : state.offsets[layer + 1]]

    def _on_time(self, what: Arguments) -> None:
        if self.state is not None:
            self.playback.playing = False
            self.playback.go_to(self.state, what.at)

    def _on_play(self, _: Arguments) -> None:
        if self.state is not None:
            self.playback.toggle(self.state)

    def _on_live(self, _: Arguments) -> None:
        self.playback.go_live()

    # What goes together

    def company(self) -> tuple[PlanSummary | None, str]:
        """What the removal of a filter would take with it, or why it is refused.

        The filter is the one the pointer rests on, else the selected one.
        """
        filter_ = self._peeked or self.selection
        if self.state is None or self.structure is None or filter_ is None:
            return None, ""
        return self._company.answer(self.state, self.structure, filter_.layer, filter_.filter_id)

    def _ask_company(self, structure: Structure) -> None:
        filter_ = self._peeked or self.selection
        if filter_ is None:
            return
        at = [layer for layer in structure.layers if layer.name == filter_.layer]
        if at and not self.refused(at[0]):
            self._company.ask(self.hub, structure, filter_.layer, filter_.filter_id)

    def _on_peek(self, what: Arguments) -> None:
        """The pointer rests on a filter; without a layer, on none any more."""
        layer = self._layer(what.layer) if what.layer is not None else None
        if layer is None or not 0 <= what.first < len(layer.ids):
            self._peeked = None
        else:
            self._peeked = Selection(layer.name, layer.ids[what.first])

    # Following the run

    def update(self) -> None:
        """Follow the run: a new one, edits, replies. Called before the components are."""
        state, structure = self.state, self.structure
        shape = 0 if state is None else state.shape
        if (state, shape) != self._seen:
            self._follow(state is not self._seen[0], structure)
            self._seen = (state, shape)
        if state is None or structure is None:
            return
        if self.playback.advance(state):
            self.touched += 1
        self._ask_company(structure)
        self._ask_plans(structure)
        self._take_plans(state)
        self._continue_apply(state, structure)

    def _follow(self, another_run: bool, structure: Structure | None) -> None:
        self.touched += 1
        if another_run:
            self.staging.unstage()
            self._queue, self._waiting, self.reply, self.selection = [], "", None, None
            self.opened.clear()
            self.playback.go_live()
            self._company.clear()
        self._peeked = None
        if structure is None or not structure.layers:
            return
        self.staging.follow(structure)
        if self.selected() is None:  # gone with an edit: stay in its layer
            names = [layer.name for layer in structure.layers]
            wanted = self.selection.layer if self.selection is not None else ""
            layer = structure.layers[names.index(wanted) if wanted in names else 0]
            self.selection = Selection(layer.name, layer.ids[0])

    # Commands of the page

    def command(self, event: Command) -> None:
        """Do what was clicked or typed. Unknown commands and void arguments do nothing."""
        handler = _COMMANDS.get(event.command)
        try:
            arguments = msgspec.convert(event.args, Arguments, strict=False)
        except msgspec.ValidationError as error:
            log.warning("Ignored a malformed command of the page: %s", error)
            return
        if handler is None or self.structure is None:
            return
        self.error = ""
        handler(self, arguments)
        self.touched += 1
        self.update()

    def select(self, layer: int, index: int) -> None:
        """Select a filter of the network as it is now."""
        structure = self.structure
        if structure is None:
            return
        chosen = structure.layers[max(0, min(int(layer), len(structure.layers) - 1))]
        index = max(0, min(int(index), len(chosen.ids) - 1))
        self.selection = Selection(chosen.name, chosen.ids[index])
        self.also = []
        self.touched += 1

    def _on_pick(self, what: Arguments) -> None:
        """Select these filters of the selection's layer, by their ids."""
        here, structure = self.selected(), self.structure
        if here is None or structure is None:
            return
        layer = structure.layers[here[0]]
        there = set(layer.ids)
        ids = [i for i in dict.fromkeys(what.ids) if i in there]
        if ids:
            self.selection = Selection(layer.name, ids[0])
            self.also = ids[1:]

    def _on_method(self, what: Arguments) -> None:
        self.method = next((method for method in METHODS if method == what.by), self.method)

    def _on_pane(self, what: Arguments) -> None:
        if what.by in PANES:
            self.pane = what.by

    def _on_anew(self, _: Arguments) -> None:
        if self.selection is not None:
            self.hub.opened.lay_out_anew(self.selection.layer, self.method)

    def _on_image(self, what: Arguments) -> None:
        """Step through the validation images; before the first comes the current batch."""
        if self.selection is not None:
            known = self.hub.opened.show(self.selection.layer, self.method)
            at = -1 if known.image is None else known.image
            at = -1 if what.by == "batch" else at + what.dx
            self.hub.opened.choose_image(self.selection.layer, None if at < 0 else at)

    def _on_select(self, chosen: Arguments) -> None:
        """Select the filter of the largest gradient in a range; in the layer without one."""
        state, layer = self.state, -1 if chosen.layer is None else chosen.layer
        if state is None or not 0 <= layer < len(state.offsets) - 1:
            return
        first, last = chosen.first, chosen.last
        values = state.layer_values("gradient", layer)
        if first < 0:
            first, last = 0, int(state.offsets[layer + 1] - state.offsets[layer]) - 1
        within = np.nan_to_num(values[first : last + 1])
        self.select(layer, first + (int(np.argmax(within)) if len(within) else 0))

    def _on_move(self, by: Arguments) -> None:
        """Move the selection: within the layer, or to the proportional place in another."""
        here, structure = self.selected(), self.structure
        if here is None or structure is None:
            return
        layer, index = here
        target = max(0, min(layer + by.dx, len(structure.layers) - 1))
        if target != layer:
            share = (index + 0.5) / len(structure.layers[layer].ids)
            index = int(share * len(structure.layers[target].ids))
        self.select(target, index + by.dy)

    def _on_open(self, what: Arguments) -> None:
        """Show every filter of a layer, or fold them up again."""
        chosen = self._layer(what.layer)
        if chosen is not None:
            self.opened ^= {chosen.name}

    def _on_sort(self, what: Arguments) -> None:
        if what.by in ("gradient", "activation"):
            self.sort_by = what.by

    def _on_follow(self, what: Arguments) -> None:
        self.hub.follow(what.run)

    def _on_dismiss(self, _: Arguments) -> None:
        self.reply = None

    def _on_stage_remove(self, _: Arguments) -> None:
        """Stage the removal of the selected filters; take it back where all of it is staged."""
        here, layer = self.selected(), self._layer(None)
        if here is None or layer is None or not self._may_change(here[0]):
            return
        picked, staged = self.picked(), set(self.staging.removed_ids(layer.name))
        for filter_id in picked:
            if (filter_id in staged) == staged.issuperset(picked):
                self.staging.toggle_removal(layer.name, filter_id)

    def _on_stage_least(self, what: Arguments) -> None:
        """Stage the removal of the layer's least active filter."""
        chosen = self._layer(what.layer)
        structure, state = self.structure, self.state
        if chosen is None or structure is None or state is None:
            return
        at = structure.layers.index(chosen)
        if self._may_change(at):
            index = self._least_active(state, at, chosen)
            if index is not None:
                self.staging.toggle_removal(chosen.name, chosen.ids[index])

    def _on_stage_add(self, what: Arguments) -> None:
        chosen = self._layer(what.layer)
        if chosen is not None and not self.refused(chosen):
            self.staging.add(chosen.name)

    def _on_stage_split(self, _: Arguments) -> None:
        here, layer = self.selected(), self._layer(None)
        if here is not None and layer is not None and self._may_change(here[0]):
            for filter_id in self.picked():
                self.staging.split(layer.name, filter_id)

    def _on_stage_merge(self, _: Arguments) -> None:
        here, layer, picked = self.selected(), self._layer(None), self.picked()
        if here is None or layer is None or len(picked) < 2:
            return
        if self._may_change(here[0]):
            self.staging.toggle("merge", layer.name, picked)

    def _on_stage_freeze(self, _: Arguments) -> None:
        """Freeze the selected filters, or unfreeze them if all of them are frozen."""
        layer = self._layer(None)
        if layer is not None:
            frozen = {layer.ids[index] for index in layer.frozen}
            kind = "unfreeze" if frozen.issuperset(self.picked()) else "freeze"
            self.staging.toggle(kind, layer.name, self.picked())

    def _on_stage_reinitialize(self, _: Arguments) -> None:
        layer = self._layer(None)
        if layer is not None:
            self.staging.toggle("reinitialize", layer.name, self.picked())

    def _on_stage_set(self, what: Arguments) -> None:
        """Set the first of ``ids`` to the mean of the others, weighted."""
        layer = self._layer(None)
        if layer is None or len(what.ids) < 2 or len(what.ids) != len(what.weights) + 1:
            return
        weights = np.array(what.weights)
        if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
            return
        if set(what.ids) <= set(layer.ids):
            target, *near = what.ids
            row = Staged(layer.name, "set", [target], neighbours=near, weights=what.weights)
            self.staging.put(row)

    def _on_unstage(self, what: Arguments) -> None:
        """Forget one row, or all; what is sent already cannot be taken back so."""
        self._queue = [row for row in self._queue if what.row and row.key != what.row]
        self.staging.unstage(what.row)

    def _on_apply(self, _: Arguments) -> None:
        if not self.busy and self.may_apply():
            self._queue = self.staging.in_order()

    def _on_undo(self, _: Arguments) -> None:
        structure = self.structure
        if structure is not None and not self.busy:
            self._send(Staged("", "undo"), structure)

    def _on_control(self, what: Arguments) -> None:
        """Hold, step, save or end the run."""
        title = CONTROLS.get(what.by)
        if title is not None:
            self._order(msgspec.convert({"type": "Control", "action": what.by}, Control), title)

    def _on_rate(self, what: Arguments) -> None:
        """Set a learning rate or a weight decay."""
        name = RATES.get(what.by)
        if name is not None:
            order = {"optimizer": what.optimizer, "group": what.group, "name": what.by}
            request = msgspec.convert({**order, "value": what.value}, SetHyperparameter)
            self._order(request, f"Set {name} to {what.value:g}")

    def _order(self, request: RunCommand, title: str) -> None:
        """Send what is not an edit of the network; its reply is shown like one of those."""
        if self.state is None:
            return
        try:
            request_id = self.hub.request(request, title, None)
        except ProtocolError as error:
            self.error = str(error)
            return
        self.reply = self.state.records[request_id]

    # Staging, previewing, applying

    def may_apply(self) -> bool:
        """Whether Apply would do something that is not known to be refused."""
        rows = self.staging.rows
        return bool(rows) and not any(isinstance(row.plan, RefusedReply) for row in rows)

    def _ask_plans(self, structure: Structure) -> None:
        for row in self.staging.rows:
            edit = row.edit(structure)
            if not row.plan_id and not self.busy and edit is not None:
                try:
                    row.plan_id = self.hub.preview(edit, structure.version)
                except ProtocolError as error:
                    self.error = str(error)

    def _take_plans(self, state: RunState) -> None:
        for row in self.staging.rows:
            if row.plan is None and row.plan_id in state.plans:
                row.plan = state.plans[row.plan_id]
                self.touched += 1

    def _continue_apply(self, state: RunState, structure: Structure) -> None:
        """Send the next request once the one before is answered and its structure is known."""
        if self._waiting:
            record = state.records.get(self._waiting)
            lost = record is None or time.time() - record.sent > PATIENCE_SECONDS
            if record is not None and record.state == "sent" and not lost:
                return
            if record is not None and record.version > structure.version and not lost:
                return
            self._waiting = ""
            self.touched += 1
        if self._queue:
            row = self._queue.pop(0)
            self.staging.unstage(row.key)
            self._send(row, structure)

    def _send(self, row: Staged, structure: Structure) -> None:
        edit = Undo() if row.kind == "undo" else row.edit(structure)
        if edit is None or self.state is None:
            return
        title = "Undo the last edit" if row.kind == "undo" else f"{row.verb} {row.title(structure)}"
        try:
            self._waiting = self.hub.request(edit, title, structure.version)
        except ProtocolError as error:
            self.error = str(error)
            return
        self.reply = self.state.records[self._waiting]
        self.touched += 1

    # Helpers

    def _layer(self, index: int | None) -> Layer | None:
        """The layer of this index, without one that of the selection."""
        structure, here = self.structure, self.selected()
        if index is None and here is not None:
            index = here[0]
        if structure is None or index is None or not 0 <= index < len(structure.layers):
            return None
        return structure.layers[index]

    def refused(self, layer: Layer) -> str:
        """Why this layer's width cannot be changed now; "" if it can."""
        health = self.hub.health()
        return f"The run has ended: {health.text}" if health.ended else layer.refused

    def _may_change(self, layer: int) -> bool:
        return self.structure is not None and not self.refused(self.structure.layers[layer])

    def _least_active(self, state: RunState, at: int, layer: Layer) -> int | None:
        """Index of the least active filter of a layer that is not staged already."""
        start, n = state.n_filters + int(state.offsets[at]), len(layer.ids)
        recent = state.filters.rows[-RECENT_ROWS:, start : start + n]
        values = state.layer_values("activation", at)
        if len(recent):
            there = np.isfinite(recent)
            values = np.where(there, recent, 0).sum(axis=0) / np.maximum(1, there.sum(axis=0))
        if len(values) != n:
            return None
        staged = set(self.staging.removed_ids(layer.name))
        for index in np.argsort(values, kind="stable"):
            if layer.ids[int(index)] not in staged:
                return int(index)
        return None

    def reply_age(self) -> float:
        """Seconds since the request of the shown reply was sent."""
        return 0.0 if self.reply is None else time.time() - self.reply.sent


_COMMANDS: dict[str, Callable[[Tab, Arguments], None]] = {
    "anew": Tab._on_anew,
    "apply": Tab._on_apply,
    "control": Tab._on_control,
    "dismiss": Tab._on_dismiss,
    "follow": Tab._on_follow,
    "image": Tab._on_image,
    "live": Tab._on_live,
    "method": Tab._on_method,
    "move": Tab._on_move,
    "open": Tab._on_open,
    "pane": Tab._on_pane,
    "peek": Tab._on_peek,
    "pick": Tab._on_pick,
    "play": Tab._on_play,
    "rate": Tab._on_rate,
    "select": Tab._on_select,
    "sort": Tab._on_sort,
    "stage_add": Tab._on_stage_add,
    "stage_freeze": Tab._on_stage_freeze,
    "stage_least": Tab._on_stage_least,
    "stage_merge": Tab._on_stage_merge,
    "stage_reinitialize": Tab._on_stage_reinitialize,
    "stage_remove": Tab._on_stage_remove,
    "stage_set": Tab._on_stage_set,
    "stage_split": Tab._on_stage_split,
    "time": Tab._on_time,
    "undo": Tab._on_undo,
    "unstage": Tab._on_unstage,
}
