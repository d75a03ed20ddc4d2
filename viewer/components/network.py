"""The network view: nodes that move with the gradient, paths as thick as the activation."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.core.properties import without_property_validation
from bokeh.models import ColumnDataSource, Range1d
from bokeh.plotting import figure

from revacnn_lightning.protocol.messages import Structure

from ..glyphs import FlowPaths, JitterScatter
from ..layout import MANY_ARCS, NetworkLayout, NodeState, compute_layout
from ..rendering.frame_codec import FramePart
from ..rendering.palette import Palette
from ..runs.run_state import RunState
from ..tab.tab_state import TabState
from . import network_data as columns
from .plain import PlainDrawing

__all__ = ["NetworkView"]

DEFAULT_SIZE = (1040, 560)
STATISTICS = ("gradient", "activation", "weight_norm")  # shown of the nodes, where published
PATHS_EVERY = 2  # frames: strokes are the dearest part of the picture


class NetworkView:
    """The figure, the HTML above it (`headers`, `selection`), and what changes all the time.

    ``source`` and ``flow`` say where nodes and paths are, and change with the layout only.
    ``numbers`` (of each node) and ``strokes`` (of each path) are handed straight to the drawing:
    a changed source would have Bokeh map and index all places anew.
    """

    def __init__(self, tab: TabState) -> None:
        self.tab = tab
        self.layout: NetworkLayout | None = None
        self.source = ColumnDataSource(columns.empty_nodes(), name="network_nodes")
        self.flow = ColumnDataSource(columns.empty_flow(), name="network_paths")
        self.arcs = ColumnDataSource({name: [] for name in ("x0", "x1", "y", "c0", "c1", "cy")})
        self.headers = FramePart("columns")
        self.selection = FramePart("selection")
        self.numbers = FramePart("numbers")
        self.strokes = FramePart("strokes")
        self.plain = PlainDrawing() if tab.link.plain else None
        self.root = self._figure()
        self._laid_out: tuple[Any, ...] = ()
        self._starts = np.zeros(0, np.int64)  # of each node, its first filter in the flat arrays
        self._shown: tuple[Any, ...] = ()
        self._told: tuple[Any, ...] = ()
        self._serials: dict[str, int] = {}
        self._frames = 0

    @property
    def panels(self) -> tuple[FramePart, ...]:
        """What the page draws, or has drawn, by itself."""
        return self.headers, self.numbers, self.strokes, self.selection

    def _figure(self) -> figure:
        width, height = DEFAULT_SIZE
        plot = figure(
            name="network",
            sizing_mode="stretch_both",
            x_range=Range1d(0, width),
            y_range=Range1d(height, 0),  # y points down, as on the screen
            tools="",
            toolbar_location=None,
            output_backend="canvas",
            min_border=0,
            lod_threshold=None,
        )
        plot.grid.visible = False
        plot.axis.visible = False
        plain = {"nonselection_glyph": None, "selection_glyph": None}
        self._arcs = plot.bezier(
            "x0", "y", "x1", "y", "c0", "cy", "c1", "cy", source=self.arcs, level="underlay",
            line_dash=[2, 3], line_width=1.2, line_alpha=0.6, line_color=self.tab.palette.muted,
        )  # fmt: skip
        if self.plain is not None:
            self.plain.add_to(plot)
            plot.tags = [self.source, self.flow]  # no glyph draws them, but the page reads them
            return plot
        plot.add_glyph(self.flow, FlowPaths(x="x", y="y", size="size"), **plain)
        plot.add_glyph(self.source, JitterScatter(x="x", y="y", size="size"), **plain)
        return plot

    def restyle(self, palette: Palette) -> None:
        self._arcs.glyph.line_color = palette.muted

    @without_property_validation
    def update(self) -> bool:
        state = self.tab.state
        if state is None or state.structure is None or not state.structure.layers:
            return self._clear()
        fresh = bool(state.new_mask().any())  # ends with time, not with a message
        company = len(state.requests.plans)  # what goes together is answered as a plan
        touched = (self.tab.revision, self.tab.edit_queue.revision)
        seen = (state, self.tab.statistics_key(), state.structure_revision, touched, fresh, company)
        layout = self._lay_out_if_needed(state, state.structure)
        if layout is None and seen == self._shown:
            return False
        self._shown = seen
        if layout is not None:
            self.layout, self._starts = layout, layout.first_filters(state.offsets)
            self._place(state.structure, layout)
        self._draw(state, state.structure, anew=layout is not None)
        return True

    def _clear(self) -> bool:
        if self.layout is None:
            return False
        self.layout, self._laid_out, self._shown, self._told = None, (), (), ()
        self.source.data, self.flow.data = columns.empty_nodes(), columns.empty_flow()
        self.arcs.data = {name: [] for name in self.arcs.data}
        self.numbers.data, self.strokes.data = {}, {}
        if self.plain is not None:
            self.plain.place(self.source.data, self.flow.data)
        self.headers.data = {**self.headers.data, "layers": [], "stages": []}
        return True

    # Where everything lies: after an edit, a resize, an opened layer

    def _lay_out_if_needed(self, state: RunState, structure: Structure) -> NetworkLayout | None:
        link = self.tab.link
        width, height = link.width or DEFAULT_SIZE[0], link.height or DEFAULT_SIZE[1]
        key = (width, height, state, state.structure_revision, frozenset(self.tab.expanded_layers))
        if key == self._laid_out:
            return None
        if key[:2] != self._laid_out[:2]:
            self.root.x_range.update(start=0, end=width)
            self.root.y_range.update(start=height, end=0)
        self._laid_out = key
        return compute_layout(structure, width, height, self.tab.expanded_layers)

    def _place(self, structure: Structure, layout: NetworkLayout) -> None:
        for layer in structure.layers:
            self._serials.setdefault(layer.name, len(self._serials) + 1)
        self.arcs.data = columns.arc_columns(layout)
        many = len(layout.arcs) > MANY_ARCS
        self._arcs.glyph.update(line_dash=[] if many else [2, 3], line_alpha=0.25 if many else 0.6)
        self.headers.data = columns.header_data(structure, layout)

    # What it shows: with every snapshot, selection, staged change

    def _draw(self, state: RunState, structure: Structure, *, anew: bool) -> None:
        """Send what has changed; with a new layout everything, in one piece."""
        layout = self.layout
        if layout is None:
            return
        starts, values = self._starts, self.tab.values()
        shown = {name: columns.bins(values[name], starts) for name in STATISTICS if name in values}
        gradient = shown.get("gradient", np.zeros(len(starts), np.float32))
        states = columns.node_states(state, structure, self.tab.staging.changes, starts)
        states[np.isnan(gradient) & (not self.tab.playback.is_live)] = NodeState.ABSENT
        if anew:
            self.source.data = columns.node_columns(structure, layout, self._serials)
            self.flow.data = columns.flow_columns(layout)
            if self.plain is not None:
                self.plain.place(self.source.data, self.flow.data)
        told = (self.tab.statistics_key(), state, state.structure_revision)
        if told != self._told or not np.array_equal(states, self.numbers.data["state"]):
            self._told = told
            self.numbers.data = {"state": states, "amp": columns.amplitude(gradient), **shown}
        self._draw_strokes(layout, shown.get("activation"), states, anew=anew)
        self._tell_selection(state, structure, layout, self._selected_node(layout))

    def _draw_strokes(
        self,
        layout: NetworkLayout,
        activation: np.ndarray | None,
        states: np.ndarray,
        *,
        anew: bool,
    ) -> None:
        staged = np.zeros(len(layout.paths.x), np.uint8)
        staged[columns.paths_of(layout, np.flatnonzero(states == NodeState.STAGED))] = 1
        self._frames += 1
        due = anew or self._frames % PATHS_EVERY == 0
        if not due and np.array_equal(staged, self.strokes.data["staged"]):
            return
        weight = np.zeros(len(staged), np.float32)
        if activation is not None:
            weight = columns.path_weights(layout, activation)
        self.strokes.data = {"weight": weight, "staged": staged}

    def _selected_node(self, layout: NetworkLayout) -> int:
        here = self.tab.selected_position()
        if here is None:
            return -1
        layer, index = here
        column = layout.columns[layer]
        inside = int(np.searchsorted(column.first, index, side="right")) - 1
        return int(layout.node_offsets[layer]) + min(inside, column.n - 1)

    def _other_nodes(self, layout: NetworkLayout, ids: list[int], layer: int) -> list[int]:
        """The nodes of the filters that are selected besides the described one."""
        row = {name: i for i, name in enumerate(ids)}
        return columns.nodes_at(layout, layer, [row[name] for name in self.tab.selected_ids()[1:]])

    def _tell_selection(
        self, state: RunState, structure: Structure, layout: NetworkLayout, node: int
    ) -> None:
        here = self.tab.selected_position()
        if here is None:
            self.selection.data = {"node": -1, "also": [], "layer": -1, "text": ""}
            return
        layer, index = here
        name = structure.layers[layer].name
        company, reason = self.tab.coupling_preview()
        of = name if self.tab.hovered is None else self.tab.hovered.layer
        content = {
            "node": node,
            "also": self._other_nodes(layout, structure.layers[layer].filter_ids, layer),
            "layer": layer,
            "index": index,
            "text": f"{name} filter {index}",
            "company": columns.nodes_of(state, layout, company),
            "company_text": reason or columns.company_text(company, of),
        }
        if content != self.selection.data:
            self.selection.data = content
