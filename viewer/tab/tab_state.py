"""What one browser tab has chosen, and what it shows of the run."""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from revacnn_lightning.protocol.messages import Layer, PlanSummary, Structure

from ..embedding.projection import Method
from ..glyphs import PageLink
from ..rendering.palette import DARK, Palette
from ..runs.registry import RunRegistry
from ..runs.run_follower import RunFollower
from ..runs.run_state import RunState
from .chart_settings import ChartSettings
from .edit_queue import EditQueue
from .playback import Playback
from .removal_preview import RemovalPreview
from .run_selection import RunSelection
from .staging import Staging

__all__ = ["Selection", "TabState"]

RECENT_ROWS = 8  # of the history, over which "least active" is judged


class Selection(Struct, frozen=True):
    """The selected filter, by names that survive edits."""

    layer: str
    filter_id: int


class TabState:
    """State of one tab. ``touched`` is counted up with every change a component may show."""

    def __init__(
        self,
        follower: RunFollower,
        link: PageLink,
        palette: Palette = DARK,
        *,
        runs: RunRegistry | None = None,
        wanted: str = "",
    ) -> None:
        self.choice = RunSelection(follower, runs, wanted)
        self.link = link
        self.palette = palette
        self.selection: Selection | None = None
        self.staging = Staging()
        self.applying = EditQueue(self.choice, self.staging)
        self.opened: set[str] = set()
        self.sort_by = "gradient"
        self.playback = Playback()
        self.charts = ChartSettings()
        self.method: Method = "tsne"
        self.pane = "layer"
        self.also: list[int] = []  # ids of the other selected filters of the selection's layer
        self.peeked: Selection | None = None  # what the pointer rests on
        self.touched = 0
        self._company = RemovalPreview()
        self._seen: tuple[RunState | None, int] = (None, 0)
        self._known: Structure | None = None  # as it was then

    # The run

    @property
    def follower(self) -> RunFollower:
        """Of the run that is shown; one without a run before there is any."""
        return self.choice.follower

    @property
    def state(self) -> RunState | None:
        return self.follower.state

    @property
    def structure(self) -> Structure | None:
        return None if self.state is None else self.state.structure

    def selected(self) -> tuple[int, int] | None:
        """Layer and index of the selected filter in the network as it is now."""
        structure = self.structure
        if self.selection is None or structure is None:
            return None
        for i, layer in enumerate(structure.layers):
            if layer.name == self.selection.layer and self.selection.filter_id in layer.filter_ids:
                return i, layer.filter_ids.index(self.selection.filter_id)
        return None

    def picked(self) -> list[int]:
        """Ids of all selected filters, the one that is described first."""
        here, structure = self.selected(), self.structure
        if here is None or structure is None or self.selection is None:
            return []
        there = set(structure.layers[here[0]].filter_ids)
        others = [i for i in self.also if i in there and i != self.selection.filter_id]
        return [self.selection.filter_id, *others]

    # The moment that is shown

    def clock(self) -> tuple[float, ...]:
        """Changes whenever other numbers are to be shown than before."""
        return self.playback.clock(self.state)

    def network(self) -> tuple[object, ...]:
        """Changes with the run that is shown, and with every edit of its network."""
        return (self.state, 0 if self.state is None else self.state.structure_revision)

    def pictured(self) -> tuple[object, ...]:
        """Changes with what is chosen to be seen in pictures."""
        return (self.follower, self.selection, self.pane, self.method)

    def news(self) -> tuple[object, ...]:
        """Changes with everything that a message of the training may have changed."""
        state, mine = self.state, (self.touched, self.applying.touched)
        if state is None:
            return mine
        return (
            state,
            state.values_revision,
            state.structure_revision,
            state.activity_revision,
            *mine,
        )

    def values(self) -> dict[str, np.ndarray]:
        """The statistics of every filter at the moment shown; NaN: it did not exist yet."""
        return self.playback.values(self.state)

    def layer_values(self, statistic: str, layer: int) -> np.ndarray:
        """One layer's part of `values`; empty if there is none."""
        values, state = self.values().get(statistic), self.state
        if values is None or state is None:
            return np.zeros(0, np.float32)
        return values[state.offsets[layer] : state.offsets[layer + 1]]

    # What goes together

    def company(self) -> tuple[PlanSummary | None, str]:
        """What the removal of a filter would take with it, or why it is refused.

        The filter is the one the pointer rests on, else the selected one.
        """
        filter_ = self.peeked or self.selection
        if self.state is None or self.structure is None or filter_ is None:
            return None, ""
        return self._company.answer(self.state, self.structure, filter_.layer, filter_.filter_id)

    def _ask_company(self, structure: Structure) -> None:
        filter_ = self.peeked or self.selection
        if filter_ is None:
            return
        at = [layer for layer in structure.layers if layer.name == filter_.layer]
        if at and not self.refused(at[0]):
            self._company.ask(self.follower, structure, filter_.layer, filter_.filter_id)

    # Following the run

    def update(self) -> None:
        """Follow the run: a new one, edits, replies. Called before the components are."""
        self.choice.update()
        state, structure = self.state, self.structure
        shape = 0 if state is None else state.structure_revision
        if (state, shape) != self._seen:
            self._follow(state is not self._seen[0], structure)
            self._seen = (state, shape)
        if state is None or structure is None:
            return
        if self.playback.advance(state):
            self.touched += 1
        self._ask_company(structure)
        self.applying.update(state, structure)

    def _follow(self, another_run: bool, structure: Structure | None) -> None:
        self.touched += 1
        if another_run:
            self.applying.forget()
            self.selection = None
            self.opened.clear()
            self.playback.go_live()
            self._company.clear()
        self.peeked = None
        if structure is None or not structure.layers:
            return
        self.staging.follow(structure)
        if self.selected() is None:  # gone with an edit
            self.selection = _next_to(self.selection, self._known, structure)
        self._known = structure

    # The network as it is now

    def select(self, layer: int, index: int) -> None:
        """Select a filter of the network as it is now."""
        structure = self.structure
        if structure is None:
            return
        chosen = structure.layers[max(0, min(int(layer), len(structure.layers) - 1))]
        index = max(0, min(int(index), len(chosen.filter_ids) - 1))
        self.selection = Selection(chosen.name, chosen.filter_ids[index])
        self.also = []
        self.touched += 1

    def layer(self, index: int | None) -> Layer | None:
        """The layer of this index, without one that of the selection."""
        structure, here = self.structure, self.selected()
        if index is None and here is not None:
            index = here[0]
        if structure is None or index is None or not 0 <= index < len(structure.layers):
            return None
        return structure.layers[index]

    def over(self) -> str:
        """Why nothing at all can be asked of the run any more; "" while it goes on."""
        health = self.follower.health()
        return f"The run has ended: {health.text}" if health.ended else ""

    def refused(self, layer: Layer) -> str:
        """Why this layer's width cannot be changed now; "" if it can."""
        return self.over() or layer.edit_refusal

    def may_change(self, layer: int) -> bool:
        return self.structure is not None and not self.refused(self.structure.layers[layer])

    def least_active(self, state: RunState, at: int, layer: Layer) -> int | None:
        """Index of the least active filter of a layer that is not staged already."""
        start, n = state.n_filters + int(state.offsets[at]), len(layer.filter_ids)
        recent = state.histories.filters.rows[-RECENT_ROWS:, start : start + n]
        values = state.layer_values("activation", at)
        if len(recent):
            there = np.isfinite(recent)
            values = np.where(there, recent, 0).sum(axis=0) / np.maximum(1, there.sum(axis=0))
        if len(values) != n:
            return None
        staged = set(self.staging.removed_ids(layer.name))
        for index in np.argsort(values, kind="stable"):
            if layer.filter_ids[int(index)] not in staged:
                return int(index)
        return None


def _next_to(gone: Selection | None, known: Structure | None, structure: Structure) -> Selection:
    """The filter that follows one that is gone, in its layer as it was known; else the last."""
    layer = structure.layers[0]
    if gone is not None:
        layer = next((one for one in structure.layers if one.name == gone.layer), layer)
    there = set(layer.filter_ids)
    before = [one.filter_ids for one in known.layers if one.name == layer.name] if known else []
    if gone is None or not before or gone.filter_id not in before[0]:
        return Selection(layer.name, layer.filter_ids[0])
    at = before[0].index(gone.filter_id)
    near = [*before[0][at:], *reversed(before[0][:at])]
    return Selection(layer.name, next((id_ for id_ in near if id_ in there), layer.filter_ids[0]))
