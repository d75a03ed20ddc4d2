"""The layout of the whole network."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from revacnn_lightning.protocol.messages import Structure

from .column_placement import Area, place_columns
from .columns import DOT_PITCH, Column
from .paths import Paths, route_paths
from .stages import find_stages, layers_of
from .titles import StageBox, column_labels, stage_boxes
from .topology import (
    Edge,
    assign_ranks,
    concatenating_layers,
    forward_edges,
    nesting_levels,
    split_edges,
)

__all__ = ["MANY_ARCS", "NetworkLayout", "compute_layout", "stage_layers"]

MAX_RANKS_ROOMY = 8
MAX_RANKS_NORMAL = 30
MIN_RANK_WIDTH_ROOMY = 92.0  # px; for a name, the size of the kernel and three buttons
MIN_RANK_WIDTH = 40.0  # px; in narrower ranks, headers would overlap
MANY_ARCS = 60  # as in networks with concatenations; their levels are not computed
MANY_ARCS_HEIGHT = 44.0  # px
ARC_LEVEL_HEIGHT = 15.0  # px
MAX_STROKE_WIDTH = 3.8  # px of a path at scale 1
PATH_SCALES = (0.7, 2.2)  # minimum where hundreds of filters share a column, and maximum


@dataclass(frozen=True)
class NetworkLayout:
    """Positions of everything in the network view, in pixels; y points down.

    Attributes:
        width, height: of the view.
        columns: one per layer.
        labels: one per layer.
        stages: frames around stages.
        paths: between the columns.
        arcs: edges that skip ranks, drawn below the columns.
        levels: nesting level of each arc; see `nesting_levels`.
        density: ``roomy``, ``normal`` or ``crowded``: how much is written above a column.
        top, bottom: space above and below the columns.
        ranks: position of each layer from left to right.
    """

    width: float
    height: float
    columns: list[Column]
    labels: list[str]
    stages: list[StageBox]
    paths: Paths
    arcs: list[Edge]
    levels: list[int]
    density: str
    top: float
    bottom: float
    ranks: list[int] = field(default_factory=list)

    @property
    def path_width(self) -> float:
        """Scale of the paths' stroke width, by the space between their ends."""
        if any(column.bar for column in self.columns) or not len(self.paths.x):
            return 1.0
        gaps = np.diff(np.sort(self.paths.y1))
        gap = float(np.median(gaps[gaps > 0])) if np.any(gaps > 0) else DOT_PITCH
        return float(np.clip(gap * 0.55 / MAX_STROKE_WIDTH, *PATH_SCALES))

    @cached_property
    def node_offsets(self) -> np.ndarray:
        """Index of each layer's first node, int (layers + 1,)."""
        return np.cumsum([0] + [column.n for column in self.columns])

    def first_filters(self, offsets: np.ndarray) -> np.ndarray:
        """Return the index of each node's first filter in flat arrays, int (nodes,).

        Args:
            offsets: index of each layer's first filter, (layers + 1,).
        """
        parts = [offsets[c.layer] + c.first[:-1] for c in self.columns]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def compute_layout(
    structure: Structure, width: float, height: float, expanded_layers: Collection[str] = ()
) -> NetworkLayout:
    """Return the layout of a network in a view of this size.

    Args:
        expanded_layers: names of the layers whose filters are all shown.
    """
    names = [layer.name for layer in structure.layers]
    edges = forward_edges(structure)
    ranks = assign_ranks(len(names), edges)
    n_ranks = max(ranks, default=-1) + 1
    density = _density(n_ranks, width)
    stages = find_stages(names, ranks) if names else []
    path_edges, arcs = split_edges(edges, ranks, concatenating_layers(structure, edges))
    top, bottom = _margins(density, bool(stages))
    levels, arcs_height = _stack_arcs(arcs, ranks)
    bottom += arcs_height
    area = Area(width, height - bottom, top, 58.0 if density == "roomy" else 24.0)
    columns = place_columns(structure, ranks, area, density, expanded_layers)
    return NetworkLayout(
        width=width,
        height=height,
        columns=columns,
        labels=column_labels(names, stages, density, width / max(1, n_ranks)),
        stages=stage_boxes(stages, ranks, columns, density),
        paths=route_paths(columns, path_edges),
        arcs=arcs,
        levels=levels,
        density=density,
        top=top,
        bottom=bottom,
        ranks=ranks,
    )


def stage_layers(structure: Structure, layer: str) -> list[str]:
    """Return the layers in the stage of ``layer``; they are expanded and collapsed together."""
    names = [one.name for one in structure.layers]
    ranks = assign_ranks(len(names), forward_edges(structure))
    return layers_of(layer, find_stages(names, ranks), names)


def _density(n_ranks: int, width: float) -> str:
    if n_ranks > MAX_RANKS_NORMAL or width < MIN_RANK_WIDTH * n_ranks:
        return "crowded"
    is_roomy = n_ranks <= MAX_RANKS_ROOMY and width >= MIN_RANK_WIDTH_ROOMY * n_ranks
    return "roomy" if is_roomy else "normal"


def _stack_arcs(arcs: list[Edge], ranks: list[int]) -> tuple[list[int], float]:
    """Return the nesting level of each arc, and the space that the levels add below, px."""
    if len(arcs) > MANY_ARCS:
        return [1] * len(arcs), MANY_ARCS_HEIGHT
    levels = nesting_levels(arcs, ranks)
    return levels, ARC_LEVEL_HEIGHT * (max(levels, default=1) - 1)


def _margins(density: str, has_stages: bool) -> tuple[float, float]:
    """Return the space above for headers and below for arcs and stage names, px."""
    if density == "roomy":
        return (104.0 if has_stages else 84.0), 26.0
    if density == "normal":
        return 86.0, 34.0
    return (58.0 if has_stages else 48.0), 30.0
