"""What one browser tab has selected, and what it shows of its run."""

from __future__ import annotations

import numpy as np

from revacnn_lightning.protocol.messages import LayerInfo, PlanSummary, Structure

from ..embedding.projection import Method
from ..rendering.palette import DARK, Palette
from ..runs.registry import RunRegistry
from ..runs.run_follower import RunFollower
from ..runs.run_state import RunState
from .block_folding import BlockFolding
from .chart_settings import ChartSettings
from .class_view import ClassViewSettings
from .coupling_preview import FilterRemovalPreviews
from .edit_queue import EditQueue
from .page_link import PageLink
from .playback import Playback
from .requested_view import PANES, RequestedView, show_requested_view
from .resumed_view import adapt_to_resumed_run, resumes_shown_run
from .run_selection import RunSelection
from .selection import FilterReference, find_filter_position, find_replacement_filter
from .staged_changes import StagedChanges

__all__ = ["TabState"]

Place = tuple[int, int] | None  # a layer and a filter, by index


class TabState:
    """State of one tab.

    Attributes:
        selection: the primary selected filter.
        other_selected_ids: ids of further selected filters in the same layer.
        is_passing: whether the primary filter leaves the selection when another becomes primary.
        hovered: the filter under the pointer.
        expanded_layers: names of the layers whose filters are all shown.
        folding: the blocks of the network that are closed.
        method: the projection method of the layer views.
        pane: the open pane of the layer panel, one of `PANES`.
        main_view: what the main part of the page shows: the ``network``, or a ``table`` of layers.
        shows_module_marks: whether the modules between the layers are marked; None: the default.
        shows_prices, compares_ranks: whether nodes are colored by price; the ranks are compared.
        class_view: the settings of what is shown of classes.
        requested_view: what the page's address names; None once it is shown.
        dismissed_alerts: Unix time of the newest alert that was dismissed.
        revision: counted up with every change that a component may show.
    """

    def __init__(
        self,
        follower: RunFollower,
        link: PageLink,
        palette: Palette = DARK,
        *,
        registry: RunRegistry | None = None,
        requested_view: RequestedView | None = None,
    ) -> None:
        requested_run = requested_view.run if requested_view is not None else ""
        self.run_selection = RunSelection(follower, registry, requested_run)
        self.requested_view = requested_view
        self.link = link
        self.palette = palette
        self.selection: FilterReference | None = None
        self.other_selected_ids: list[int] = []
        self.is_passing = False
        self.hovered: FilterReference | None = None
        self.staging = StagedChanges()
        self.edit_queue = EditQueue(self.run_selection, self.staging)
        self.expanded_layers: set[str] = set()
        self.folding = BlockFolding()
        self.sort_by = "gradient"
        self.playback = Playback()
        self.chart_settings = ChartSettings()
        self.method: Method = "tsne"
        self.pane = PANES[0]
        self.main_view = "network"
        self.shows_module_marks: bool | None = None
        self.shows_prices = self.compares_ranks = False
        self.class_view = ClassViewSettings()
        self.dismissed_alerts = 0.0
        self.revision = 0
        self._coupling_preview = FilterRemovalPreviews()
        self._position: tuple[FilterReference | None, Structure | None, Place] = (None, None, None)
        self._known_key: tuple[object, ...] = (None, 0)
        self._known_structure: Structure | None = None  # the structure before the last edit

    # The run

    @property
    def follower(self) -> RunFollower:
        """The follower of the shown run; it has no state while there is no run."""
        return self.run_selection.follower

    @property
    def state(self) -> RunState | None:
        return self.follower.state

    @property
    def structure(self) -> Structure | None:
        return None if self.state is None else self.state.structure

    # The selection

    def selected_position(self) -> tuple[int, int] | None:
        """Return the layer and filter index of the selection in the current network."""
        structure, selection = self.structure, self.selection
        if selection is None or structure is None:
            return None
        known_selection, known_structure, position = self._position
        if known_selection != selection or known_structure is not structure:
            position = find_filter_position(structure, selection)
            self._position = selection, structure, position
        return position

    def selected_ids(self) -> list[int]:
        """Return the ids of all selected filters, the primary one first."""
        position, structure = self.selected_position(), self.structure
        if position is None or structure is None or self.selection is None:
            return []
        primary, present = self.selection.filter_id, set(structure.layers[position[0]].filter_ids)
        others = [i for i in self.other_selected_ids if i in present and i != primary]
        return [primary, *others]

    def select(self, layer: int, index: int) -> None:
        """Select a filter of the current network. Out-of-range indices are clamped."""
        structure = self.structure
        if structure is None:
            return
        chosen = structure.layers[max(0, min(int(layer), len(structure.layers) - 1))]
        index = max(0, min(int(index), len(chosen.filter_ids) - 1))
        self.select_ids(chosen.name, [chosen.filter_ids[index]])

    def select_ids(self, layer: str, ids: list[int], *, is_passing: bool = False) -> None:
        """Select filters of a layer, at least one, by their ids. The first one becomes primary."""
        primary, *self.other_selected_ids = dict.fromkeys(ids)
        self.selection, self.is_passing = FilterReference(layer, primary), is_passing
        self.revision += 1

    def layer(self, index: int | None) -> LayerInfo | None:
        """Return the layer with this index, or the selected layer if ``index`` is None."""
        structure, position = self.structure, self.selected_position()
        if index is None and position is not None:
            index = position[0]
        if structure is None or index is None or not 0 <= index < len(structure.layers):
            return None
        return structure.layers[index]

    def layer_names(self) -> list[str]:
        """Return the names of all layers, in forward order."""
        return [] if self.structure is None else [layer.name for layer in self.structure.layers]

    # Keys: components and the page compare them to what they showed last

    def statistics_key(self) -> tuple[float, ...]:
        """Return a key that changes whenever other statistics are to be shown."""
        return self.playback.key(self.state)

    def structure_key(self) -> tuple[object, ...]:
        """Return a key that changes with the shown run and with every edit of its network."""
        return (self.state, 0 if self.state is None else self.state.structure_revision)

    def images_key(self) -> tuple[object, ...]:
        """Return a key that changes with the selection of what is shown as images or as a table."""
        return (self.follower, self.selection, self.pane, self.method, self.main_view)

    def update_key(self) -> tuple[object, ...]:
        """Return a key that changes with everything a message or an action may have changed."""
        return (self.actions_key(), 0 if self.state is None else self.state.values_revision)

    def actions_key(self) -> tuple[object, ...]:
        """Return a key that changes with all that `update_key` does, except new statistics."""
        state, own = self.state, (self.revision, self.edit_queue.revision)
        if state is None:
            return own
        return (state, state.structure_revision, state.activity_revision, *own)

    # Statistics of the shown batch

    def values(self) -> dict[str, np.ndarray]:
        """Return the statistics of every filter, each (filters,); NaN if it did not exist yet."""
        return self.playback.values(self.state)

    def layer_values(self, statistic: str, layer: int) -> np.ndarray:
        """Return the values of one layer, (filters of the layer,); empty if there are none."""
        values, state = self.values().get(statistic), self.state
        if values is None or state is None:
            return np.zeros(0, np.float32)
        return values[state.offsets[layer] : state.offsets[layer + 1]]

    # Coupled filters

    def coupling_preview(self) -> tuple[PlanSummary | None, str]:
        """Return the plan of removing the hovered or selected filter, or why it is refused."""
        target, state = self.hovered or self.selection, self.state
        if state is None or self.structure is None or target is None:
            return None, ""
        preview = self._coupling_preview
        return preview.plan_or_refusal(state, self.structure, target.layer, target.filter_id)

    def _request_coupling_preview(self, structure: Structure) -> None:
        target = self.hovered or self.selection
        if target is None:
            return
        layer = next((one for one in structure.layers if one.name == target.layer), None)
        if layer is not None and not (self.follower.run_status().is_final or layer.edit_refusal):
            self._coupling_preview.request(self.follower, structure, target.layer, target.filter_id)

    # What may be changed

    def ended_reason(self) -> str:
        """Return why the run accepts no requests any more; "" if it may."""
        run_status = self.follower.run_status()
        return run_status.refusal if run_status.has_ended else ""

    def waiting_reason(self, waiting_text: str) -> str:
        """Return ``waiting_text``, or why the run sends no more batches that it could wait for."""
        run_status = self.follower.run_status()
        note = "; the run is paused" if run_status.kind == "paused" else ""
        return run_status.refusal or waiting_text + note

    def lasting_refusal(self) -> str:
        """Return why this page can no longer steer the run, or never could; "" if it may."""
        run_status, access = self.follower.run_status(), self.follower.access
        if run_status.is_final:
            return run_status.refusal
        if access is not None and access.role == "observer":
            return f"This page only observes the run: its key {access.key!r} is an observer's."
        return ""

    def steering_refusal(self) -> str:
        """Return why this page cannot steer the run now; "" if it can. All controls obey it."""
        return self.lasting_refusal() or self.follower.run_status().refusal

    def width_refusal(self, layer: LayerInfo) -> str:
        """Return why the layer's width cannot be changed; "" if it can."""
        return self.steering_refusal() or layer.edit_refusal

    # Updates

    def update(self) -> None:
        """Process a new run, edits and replies. Called before the components are updated."""
        self.run_selection.update()
        state, structure = self.state, self.structure
        key = self.structure_key()
        if key != self._known_key:
            self._update_structure(state is not self._known_key[0], structure)
            self._known_key = key
        if state is None or structure is None:
            return
        if self.requested_view is not None:
            self.edit_queue.error = show_requested_view(self, self.requested_view)
            self.requested_view = None
            self.revision += 1
        if self.playback.advance(state):
            self.revision += 1
        if self.staging.changes and self.lasting_refusal():
            self.edit_queue.discard_because(self.lasting_refusal())
        self._request_coupling_preview(structure)
        self.edit_queue.update(state, structure)

    def _update_structure(self, is_other_run: bool, structure: Structure | None) -> None:
        self.revision += 1
        if is_other_run and resumes_shown_run(self.state, self._known_key[0]):
            self._coupling_preview.clear()
            adapt_to_resumed_run(self, self._known_structure)
        elif is_other_run:
            self.edit_queue.reset()
            self.selection = None
            self.expanded_layers.clear()
            self.folding.forget_network()
            self.playback.go_live()
            self._coupling_preview.clear()
        self.hovered = None
        if structure is None or not structure.layers:
            return
        self.folding.fold_initially(self.layer_names())
        self.staging.update_structure(structure)
        if self.edit_queue.is_inserting:
            self._show_inserted_layer(structure)
        if self.selected_position() is None:  # removed by an edit
            self.selection = find_replacement_filter(
                self.selection, self._known_structure, structure
            )
        self._known_structure = structure

    def _show_inserted_layer(self, structure: Structure) -> None:
        """Select the layer that this tab has inserted, and open its panel."""
        known = {one.name for one in self._known_structure.layers} if self._known_structure else {}
        for i, layer in enumerate(structure.layers):
            if layer.name not in known:
                self.edit_queue.is_inserting = False
                self.select(i, 0)
                self.folding.open_around(i, self.layer_names())
                self.pane = "layer"
                return
