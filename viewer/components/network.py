"""The network view: nodes that move with the gradient, paths as thick as the activation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from revacnn_lightning.protocol.messages import Structure

from ..layout import NetworkLayout, NodeState, compute_layout
from ..layout.input_output import InputOutputDimensions, InputOutputPlacement, place_input_output
from ..rendering.formatting import format_selected_filters
from ..rendering.frame_codec import PagePartContent
from ..rendering.palette import Palette
from ..runs.run_state import RunState
from ..tab.shown_input import request_shown_image_pass
from ..tab.tab_state import TabState
from . import network_data
from .input_output_data import (
    class_name_width,
    input_output_dimensions,
    input_readers_if_all_fed,
    relative_channel_magnitudes,
)
from .network_data import normalize_gradients, path_and_arc_thickness
from .network_headers import network_header_data
from .node_colors import price_or_class_tones, price_or_class_tones_key
from .shared_results import compute_once

__all__ = ["NetworkView"]

DEFAULT_SIZE = (1040, 560)  # px, until the page reports its own
STATISTICS = ("gradient", "activation", "weight_norm")  # shown of the nodes, where published
STROKE_INTERVAL = 2  # frames: the paths are the most expensive part of the picture

T = TypeVar("T")


class NetworkView:
    """The network as nodes and paths: it sends their layout, statistics and selection.

    ``network_layout`` (the HTML over the canvas), ``nodes`` and ``arcs`` change with the layout
    only, and ``paths`` also with the input and the outputs; ``numbers`` (one row per node) and
    ``strokes`` (one row per path) with every snapshot, ``selection`` with what is selected or
    hovered.
    """

    def __init__(self, tab: TabState) -> None:
        self.tab = tab
        self.layout: NetworkLayout | None = None
        self.input_output: InputOutputPlacement | None = None
        self._input_output_dimensions = InputOutputDimensions()
        self._name_width: tuple[RunState | None, float] = None, 0.0  # of a run, px
        self._input_output_key: tuple[Any, ...] = ()
        self._channels = np.zeros(0, np.float32)  # weight of each channel of the input
        self.network_layout = PagePartContent("network_layout")
        self.nodes = PagePartContent("nodes")
        self.paths = PagePartContent("paths")
        self.arcs = PagePartContent("arcs")
        self.numbers = PagePartContent("numbers")
        self.strokes = PagePartContent("strokes")
        self.selection = PagePartContent("selection")
        self._layout_key: tuple[Any, ...] = ()
        self._readers_key: tuple[Any, ...] = ()
        self._readers: tuple[int, ...] = ()
        self._starts = np.zeros(0, np.int64)  # of each node, its first filter in the flat arrays
        self._nodes_key = b"", b""  # of the filters and the layer of each node
        self._shown: tuple[Any, ...] = ()
        self._shown_numbers: tuple[Any, ...] = ()
        self._selection_key: tuple[Any, ...] = ()
        self._layer_keys: dict[str, int] = {}
        self._frames = 0
        self._set_empty_layout()

    @property
    def root(self) -> PagePartContent:
        """The part that every page has."""
        return self.network_layout

    @property
    def source(self) -> PagePartContent:
        """The part that says where the nodes are."""
        return self.nodes

    @property
    def panels(self) -> tuple[PagePartContent, ...]:
        """The parts besides `root`."""
        return self.nodes, self.paths, self.arcs, self.numbers, self.strokes, self.selection

    def restyle(self, palette: Palette) -> None:
        """Do nothing: the page knows the colors of both themes."""

    def update(self) -> bool:
        """Show what is new; return whether anything was."""
        state = self.tab.state
        if state is None or state.structure is None or not state.structure.layers:
            return self._clear()
        has_new = bool(state.new_filter_mask().any())  # ends with time, not with a message
        plans = len(state.requests.plans)  # a coupling preview arrives as a plan
        edits = (self.tab.revision, self.tab.edit_queue.revision)
        statistics = self.tab.statistics_key()
        request_shown_image_pass(self.tab)
        passed = self.tab.follower.image_passes.revision
        tones = price_or_class_tones_key(self.tab)
        content = (
            state,
            statistics,
            state.structure_revision,
            edits,
            has_new,
            plans,
            passed,
            tones,
        )
        layout = self._compute_layout_if_needed(state, state.structure)
        if layout is None and content == self._shown:
            return False
        self._shown = content
        if layout is not None:
            self._show_layout(state, state.structure, layout)
        is_new = self._place_input_output(state.structure) or layout is not None
        self._show_state(state, state.structure, is_new_layout=is_new)
        return True

    def _clear(self) -> bool:
        if self.layout is None:
            return False
        self.layout, self._layout_key, self._shown, self._shown_numbers = None, (), (), ()
        self.input_output = None
        self.numbers.data, self.strokes.data = {}, {}
        empty: dict[str, Any] = {"layers": [], "blocks": [], "stages": []}
        self.network_layout.data = {**self.network_layout.data, **empty}
        self._set_empty_layout()
        return True

    def _set_empty_layout(self) -> None:
        self.nodes.data = network_data.empty_node_data()
        self.paths.data = network_data.empty_path_data()
        self.arcs.data = network_data.empty_arc_data()

    # The layout: changes with an edit, a resize, an expanded layer, an opened block

    def _compute_layout_if_needed(
        self, state: RunState, structure: Structure
    ) -> NetworkLayout | None:
        link = self.tab.link
        width, height = link.width or DEFAULT_SIZE[0], link.height or DEFAULT_SIZE[1]
        expanded, closed = frozenset(self.tab.expanded_layers), self.tab.folding.closed
        readers, names = self._input_readers(state, structure), self._room_for_names(state)
        key = (width, height, state, state.structure_revision, expanded, closed, readers, names)
        if key == self._layout_key:
            return None
        self._layout_key = key
        return compute_layout(
            *(structure, width, height, expanded, closed),
            has_input_output=True,
            input_readers=readers,
            class_name_width=names,
        )

    def _input_readers(self, state: RunState, structure: Structure) -> tuple[int, ...]:
        """Return the layers inside the network that read the input; computed once per network."""
        passed = self.tab.follower.image_passes.newest
        key = state, state.structure_revision, None if passed is None else tuple(passed.readers)
        if key != self._readers_key:
            self._readers_key, self._readers = key, input_readers_if_all_fed(structure, passed)
        return self._readers

    def _room_for_names(self, state: RunState) -> float:
        """Return the largest width of names so far, so that the columns do not move back."""
        of_run, width = self._name_width
        newest = class_name_width(self.tab.follower.image_passes.newest)
        self._name_width = state, max(newest, width if of_run is state else 0.0)
        return self._name_width[1]

    def _show_layout(self, state: RunState, structure: Structure, layout: NetworkLayout) -> None:
        self.layout, self._starts = layout, layout.first_filters(state.offsets)
        self._nodes_key = self._starts.tobytes(), layout.node_offsets.tobytes()
        self.input_output = None  # those of another layout
        for layer in structure.layers:
            self._layer_keys.setdefault(layer.name, len(self._layer_keys) + 1)
        self.network_layout.data = network_header_data(structure, layout)
        self.nodes.data = network_data.node_data(structure, layout, self._layer_keys)
        self.arcs.data = network_data.arc_data(layout)

    def _place_input_output(self, structure: Structure) -> bool:
        """Place the input and the outputs if they or the layout have changed; return whether so."""
        layout, passes = self.layout, self.tab.follower.image_passes
        key = (self.tab.state, passes.revision)
        if layout is None or (self.input_output is not None and key == self._input_output_key):
            return False
        self._input_output_key = key
        shape = input_output_dimensions(structure, layout, passes.newest)
        if self.input_output is not None and shape == self._input_output_dimensions:
            return False
        self.input_output, self._input_output_dimensions = place_input_output(layout, shape), shape
        self.paths.data = network_data.path_data(layout, self.input_output)
        return True

    # The state: changes with every snapshot, selection, staged edit

    def _show_state(self, state: RunState, structure: Structure, *, is_new_layout: bool) -> None:
        """Send what has changed; with a new layout everything, in one frame."""
        layout = self.layout
        if layout is None or self.input_output is None:
            return
        starts = self._starts
        means = self._shared("means", state, self._node_means)
        gradient = means.get("gradient", np.zeros(len(starts), np.float32))
        dead = self.tab.playback.dead_mask(state)
        states = network_data.node_states(state, structure, self.tab.staging.changes, starts, dead)
        states[np.isnan(gradient) & (not self.tab.playback.is_live)] = NodeState.ABSENT
        colors = price_or_class_tones_key(self.tab)
        numbers = (self.tab.statistics_key(), state, state.structure_revision, colors)
        if numbers != self._shown_numbers or not np.array_equal(states, self.numbers.data["state"]):
            self._shown_numbers = numbers
            amplitude = self._shared("amplitude", state, lambda: normalize_gradients(gradient))
            tones = price_or_class_tones(self.tab, starts)
            self.numbers.data = {"state": states, "amplitude": amplitude, **tones, **means}
        relative = self._relative_activation(state, layout, means.get("activation"))
        self._show_strokes(layout, self.input_output, relative, states, is_new_layout=is_new_layout)
        key = (is_new_layout, *self.tab.actions_key(), self.tab.hovered, self.tab.selection)
        if is_new_layout or key != self._selection_key:
            self._selection_key = key
            self._show_selection(state, structure, layout)

    def _shared(self, name: str, state: RunState, compute: Callable[[], T]) -> T:
        """Return what all tabs with these nodes show of the batch; the first one computes it."""
        key = (name, self.tab.statistics_key(), state.structure_revision, self._nodes_key)
        return compute_once(state, key, compute)

    def _node_means(self) -> dict[str, np.ndarray]:
        values = self.tab.values()
        return {
            name: network_data.node_means(values[name], self._starts)
            for name in STATISTICS
            if name in values
        }

    def _relative_activation(
        self, state: RunState, layout: NetworkLayout, activation: np.ndarray | None
    ) -> Callable[[], np.ndarray]:
        """Return what computes the relative activation of each node, which few frames need."""
        offsets = layout.node_offsets
        if activation is None:
            return lambda: np.zeros(int(offsets[-1]), np.float32)
        known = activation
        return lambda: self._shared(
            "relative", state, lambda: network_data.relative_activation(known, offsets)
        )

    def _show_strokes(
        self,
        layout: NetworkLayout,
        input_output: InputOutputPlacement,
        relative: Callable[[], np.ndarray],
        states: np.ndarray,
        *,
        is_new_layout: bool,
    ) -> None:
        staged = np.zeros(len(layout.paths.x) + len(input_output.paths.x), np.uint8)
        nodes = np.flatnonzero(states == NodeState.STAGED)
        staged[network_data.paths_from(layout, nodes)] = 1
        newest = self.tab.follower.image_passes.newest
        channels = relative_channel_magnitudes(newest, len(input_output.channel_y))
        is_same_input = np.array_equal(channels, self._channels)
        self._channels = channels
        self._frames += 1
        is_due = is_new_layout or not is_same_input or self._frames % STROKE_INTERVAL == 0
        if not is_due and np.array_equal(staged, self.strokes.data["staged"]):
            return
        weight, arc_weight = path_and_arc_thickness(layout, input_output, relative(), channels)
        self.strokes.data = {"weight": weight, "arc_weight": arc_weight, "staged": staged}

    def _show_selection(self, state: RunState, structure: Structure, layout: NetworkLayout) -> None:
        selected = self.tab.selected_position()
        if selected is None:
            self.selection.data = {"node": -1, "also": [], "layer": -1, "text": ""}
            return
        layer, index = selected
        name, ids = structure.layers[layer].name, structure.layers[layer].filter_ids
        row = {filter_id: i for i, filter_id in enumerate(ids)}
        also = [row[filter_id] for filter_id in self.tab.selected_ids()[1:]]
        coupled, reason = self.tab.coupling_preview()
        origin = name if self.tab.hovered is None else self.tab.hovered.layer
        content = {
            "node": network_data.node_of_filter(layout, layer, index),
            "also": network_data.nodes_of_filters(layout, layer, also),
            "layer": layer,
            "index": index,
            "text": f"{name} {format_selected_filters(index, len(also) + 1)}",
            "coupled": network_data.coupled_nodes(state, layout, coupled),
            "coupling_text": reason or network_data.removal_preview_text(coupled, origin),
        }
        if content != self.selection.data:
            self.selection.data = content
