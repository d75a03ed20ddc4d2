"""The network view: nodes that move with the gradient, paths as thick as the activation."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from bokeh.core.properties import without_property_validation
from bokeh.models import ColumnDataSource, Range1d
from bokeh.plotting import figure

from revacnn_lightning.protocol.messages import Planned, Structure

from ..glyphs import FlowPaths, JitterScatter, Panel
from ..layout import NetworkLayout, State, lay_out
from ..palette import Palette
from ..run_state import RunState
from ..tab import Tab

__all__ = ["NetworkView", "amplitude", "thickness"]

# Gradients spread over orders of magnitude; a few extremes must not still all the others.
ROBUST = (3.0, 99.3)
DEFAULT_SIZE = (1040, 560)
STATISTICS = ("gradient", "activation", "weight_norm")  # columns of the nodes, where published
PATHS_EVERY = 2  # frames: strokes are the dearest part of the picture
ID_BITS = 2**32


class NetworkView:
    """The figure, and the HTML above it (`headers`, `selection`)."""

    def __init__(self, tab: Tab) -> None:
        self.tab = tab
        self.layout: NetworkLayout | None = None
        self.source = ColumnDataSource(_empty_nodes())
        self.flow = ColumnDataSource(_empty_flow())
        self.arcs = ColumnDataSource({name: [] for name in ("x0", "x1", "y", "c0", "c1", "cy")})
        self.headers = Panel(part="columns", data={}, name="columns")
        self.selection = Panel(part="selection", data={}, name="selection")
        self.root = self._figure()
        self._laid_out: tuple[Any, ...] = ()
        self._shown: tuple[Any, ...] = ()
        self._serials: dict[str, int] = {}
        self._frames = 0

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
        plot.add_glyph(self.flow, FlowPaths(x="x", y="y", size="size"), **plain)
        # The overlay has a canvas of its own: moving nodes repaint nothing else.
        plot.add_glyph(
            self.source, JitterScatter(x="x", y="y", size="size"), level="overlay", **plain
        )
        return plot

    def restyle(self, palette: Palette) -> None:
        self._arcs.glyph.line_color = palette.muted

    @without_property_validation
    def update(self) -> bool:
        state = self.tab.state
        if state is None or state.structure is None:
            return self._clear()
        changed = self._lay_out_if_needed(state, state.structure)
        fresh = bool(state.new().any())  # ends with time, not with a message
        seen = (state, state.numbers, state.shape, self.tab.touched, fresh)
        if changed or seen != self._shown:
            self._shown = seen
            self._draw(state, state.structure)
            return True
        return False

    def _clear(self) -> bool:
        if self.layout is None:
            return False
        self.layout, self._laid_out, self._shown = None, (), ()
        self.source.data, self.flow.data = _empty_nodes(), _empty_flow()
        self.arcs.data = {name: [] for name in self.arcs.data}
        self.headers.data = {**self.headers.data, "layers": [], "stages": []}
        return True

    # Where everything lies: after an edit, a resize, an opened layer

    def _lay_out_if_needed(self, state: RunState, structure: Structure) -> bool:
        link = self.tab.link
        width, height = link.width or DEFAULT_SIZE[0], link.height or DEFAULT_SIZE[1]
        key = (state, state.shape, width, height, frozenset(self.tab.opened))
        if key == self._laid_out:
            return False
        layout = lay_out(structure, width, height, self.tab.opened)
        resized = key[2:4] != self._laid_out[2:4]
        self.layout, self._laid_out = layout, key
        self._place_nodes(state, structure, layout)
        flow = layout.flow
        self.flow.data = {
            "x": flow.x, "y": flow.y, "x1": flow.x1, "y1": flow.y1,
            "size": np.full(len(flow.x), layout.stroke, np.float32),
            "weight": np.zeros(len(flow.x), np.float32), "mark": np.zeros(len(flow.x), np.uint8),
        }  # fmt: skip
        self.arcs.data = _arcs(layout)
        if resized:
            self.root.x_range.update(start=0, end=width)
            self.root.y_range.update(start=height, end=0)
        self.headers.data = _headers(structure, layout)
        return True

    def _place_nodes(self, state: RunState, structure: Structure, layout: NetworkLayout) -> None:
        columns = layout.columns
        sizes = [column.n for column in columns]

        def spread(values: list[float]) -> np.ndarray:
            return np.repeat(np.asarray(values, np.float32), sizes)

        first = np.concatenate([column.first[:-1] for column in columns])
        ids = np.concatenate(
            [np.asarray(structure.layers[c.layer].ids, np.float64)[c.first[:-1]] for c in columns]
        )
        serials = [self._serial(structure.layers[c.layer].name) for c in columns]
        key = np.repeat(np.asarray(serials, np.float64), sizes) * ID_BITS + ids
        n = len(first)
        self.source.data = {
            "x": np.concatenate([column.x for column in columns]),
            "y": np.concatenate([column.y for column in columns]),
            "size": spread([column.size for column in columns]),
            "bar": spread([column.bar for column in columns]),
            "phase": ((key * 0.6180339887) % 1 * 2 * np.pi).astype(np.float32),
            "key": key,
            "layer": np.repeat(np.asarray([c.layer for c in columns], np.int32), sizes),
            "first": first.astype(np.int32),
            "last": np.concatenate([c.first[1:] - 1 for c in columns]).astype(np.int32),
            "amp": np.zeros(n, np.float32),
            "state": np.zeros(n, np.uint8),
            **{name: np.zeros(n, np.float32) for name in STATISTICS if name in state.latest},
        }

    def _serial(self, layer: str) -> int:
        return self._serials.setdefault(layer, len(self._serials) + 1)

    # What they show: with every snapshot, selection, staged change

    def _draw(self, state: RunState, structure: Structure) -> None:
        layout = self.layout
        if layout is None:
            return
        starts = layout.first_filters(state.offsets)
        shown = {
            name: _bins(state.latest[name], starts) for name in STATISTICS if name in state.latest
        }
        states = self._states(state, structure, starts)
        node = self._selected_node(layout)
        columns: dict[str, Any] = {"state": states, **shown}
        path_columns: dict[str, Any] = {}
        marks = np.zeros(len(layout.flow.x), np.uint8)
        marks[_paths_of(layout, np.flatnonzero(states == State.STAGED))] = 2
        marks[_paths_of(layout, np.array([node]))] = 1
        if not np.array_equal(marks, self.flow.data["mark"]):
            path_columns["mark"] = marks
        if "gradient" in shown and "activation" in shown:
            columns["amp"] = amplitude(shown["gradient"])
            self._frames += 1
            if path_columns or self._frames % PATHS_EVERY == 1:
                path_columns["weight"] = _path_weights(layout, shown["activation"])
        self.source.data.update(columns)
        if path_columns:
            self.flow.data.update(path_columns)
        self._tell_selection(structure, node)

    def _states(self, state: RunState, structure: Structure, starts: np.ndarray) -> np.ndarray:
        frozen = np.zeros(state.n_filters, bool)
        staged, together = frozen.copy(), frozen.copy()
        for i, layer in enumerate(structure.layers):
            offset = int(state.offsets[i])
            frozen[[offset + index for index in layer.frozen]] = True
            removed = set(self.tab.staging.removed_ids(layer.name))
            if removed:
                at = [offset + k for k, id_ in enumerate(layer.ids) if id_ in removed]
                staged[at] = True
        for row in self.tab.staging.rows:
            if isinstance(row.plan, Planned):
                for part in row.plan.plan.sets:
                    layer_at = state.layer_index(part.layer)
                    if layer_at is not None:
                        end = int(state.offsets[layer_at + 1])
                        at = [int(state.offsets[layer_at]) + index for index in part.filters]
                        together[[index for index in at if index < end]] = True
        return _combine(starts, state.dead(), state.new(), frozen, staged, together)

    def _selected_node(self, layout: NetworkLayout) -> int:
        here = self.tab.selected()
        if here is None:
            return -1
        layer, index = here
        column = layout.columns[layer]
        inside = int(np.searchsorted(column.first, index, side="right")) - 1
        return int(layout.node_offsets[layer]) + min(inside, column.n - 1)

    def _tell_selection(self, structure: Structure, node: int) -> None:
        here = self.tab.selected()
        if here is None:
            self.selection.data = {"node": -1, "layer": -1, "text": ""}
            return
        layer, index = here
        name = structure.layers[layer].name
        content = {"node": node, "layer": layer, "index": index, "text": f"{name} filter {index}"}
        if content != self.selection.data:
            self.selection.data = content


def amplitude(gradient: np.ndarray) -> np.ndarray:
    """How strongly each node moves, 0 to 1: log-scaled between robust percentiles."""
    gradient = np.nan_to_num(gradient, nan=0.0, posinf=np.finfo(np.float32).max)
    positive = gradient[gradient > 0]
    if not len(positive):
        return np.zeros(len(gradient), np.float32)
    low, high = np.log(np.percentile(positive, ROBUST))
    logs = np.log(np.maximum(gradient, 1e-38))
    scale = (logs - low) / (high - low) if high > low else np.full(len(gradient), 0.5)
    return np.where(gradient > 0, np.clip(scale, 0, 1) ** 1.5, 0).astype(np.float32)


def thickness(activation: np.ndarray) -> np.ndarray:
    """Thickness of one layer's paths, 0 to 1: relative to its most active filters."""
    activation = np.nan_to_num(activation, nan=0.0, posinf=0.0)
    top = np.percentile(activation, 99) if len(activation) else 0.0
    if top <= 0:
        return np.zeros(len(activation), np.float32)
    return (np.clip(activation / top, 0, 1) ** 0.8).astype(np.float32)


def _bins(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Mean of each node's filters."""
    if len(starts) == len(values):
        return values
    counts = np.diff(np.append(starts, len(values)))
    return (np.add.reduceat(values, starts) / counts).astype(np.float32)


def _combine(
    starts: np.ndarray,
    dead: np.ndarray,
    new: np.ndarray,
    frozen: np.ndarray,
    staged: np.ndarray,
    together: np.ndarray,
) -> np.ndarray:
    """One state per node; of several filters, dead and frozen only where all are."""
    states = np.zeros(len(starts), np.uint8)
    if not len(starts):
        return states
    states[np.logical_and.reduceat(dead, starts)] = State.DEAD
    states[np.logical_and.reduceat(frozen, starts)] = State.FROZEN
    states[np.logical_or.reduceat(new, starts)] = State.NEW
    states[np.logical_or.reduceat(together, starts)] = State.TOGETHER
    states[np.logical_or.reduceat(staged, starts)] = State.STAGED
    return states


def _path_weights(layout: NetworkLayout, activation: np.ndarray) -> np.ndarray:
    """Of several nodes a path stands for, the strongest."""
    offsets = layout.node_offsets
    parts = [thickness(activation[a:b]) for a, b in pairwise(offsets)]
    weights = np.append(np.concatenate(parts), np.float32(0))
    pairs = np.stack([layout.flow.first, layout.flow.last], axis=1).ravel()
    return np.maximum.reduceat(weights, pairs)[::2] if len(pairs) else np.zeros(0, np.float32)


def _paths_of(layout: NetworkLayout, nodes: np.ndarray) -> np.ndarray:
    """Indices of the paths that begin at one of these nodes."""
    if not len(nodes) or not len(layout.flow.first):
        return np.zeros(0, np.int64)
    place = np.searchsorted(nodes, layout.flow.first)
    ends = np.append(nodes, np.iinfo(np.int64).max)
    return np.flatnonzero(ends[place] < layout.flow.last)


def _arcs(layout: NetworkLayout) -> dict[str, np.ndarray]:
    """Connections that skip layers, hanging below the columns."""
    centers = np.array([column.center for column in layout.columns])
    pairs = np.array(layout.arcs, np.int64).reshape(-1, 2)
    x0, x1 = centers[pairs[:, 0]], centers[pairs[:, 1]]
    y = np.full(len(pairs), layout.height - layout.bottom + 6)
    sag = np.minimum(layout.bottom * 1.1, 8 + (x1 - x0) * 0.10)
    return {
        "x0": x0, "x1": x1, "y": y,
        "c0": x0 + (x1 - x0) * 0.25, "c1": x1 - (x1 - x0) * 0.25, "cy": y + sag,
    }  # fmt: skip


def _headers(structure: Structure, layout: NetworkLayout) -> dict[str, Any]:
    """What the page writes above the columns."""
    shared = {place for place in layout.rank if layout.rank.count(place) > 1}
    staged = bool(layout.stages)
    header_y = {"roomy": 34 if staged else 12, "normal": 30 if staged else 12}.get(layout.density)
    layers = []
    for column in layout.columns:
        layer = structure.layers[column.layer]
        lane = layout.rank[column.layer] in shared
        layers.append(
            {
                "index": column.layer,
                "name": layer.name,
                "label": layout.labels[column.layer],
                "filters": len(layer.ids),
                "kernel": "×".join(map(str, layer.kernel_size)),
                "center": column.center,
                "top": column.top,
                "header_y": header_y,
                "lane": lane,
                "refused": layer.refused,
            }
        )
    return {
        "width": layout.width,
        "height": layout.height,
        "density": layout.density,
        "layers": layers,
        "stages": [{"name": s.name, "left": s.left, "right": s.right} for s in layout.stages],
        "stage_top": 26,
    }


def _empty_nodes() -> dict[str, np.ndarray]:
    names = ("x", "y", "size", "bar", "phase", "key", "layer", "first", "last", "amp", "state")
    return {name: np.zeros(0, np.float32) for name in names}


def _empty_flow() -> dict[str, np.ndarray]:
    return {
        name: np.zeros(0, np.float32) for name in ("x", "y", "x1", "y1", "size", "weight", "mark")
    }
