"""Paths between units: from the rows of a layer, or bundled from the edge of a closed block."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from .boxes import Box, PathLane, Placement
from .connections import Connections
from .folding import LayoutUnit
from .path_starts import (
    FAN,
    MIN_PATH_WIDTH,
    NODE_OVERLAP,
    PathStarts,
    fan_out_path_starts,
    path_starts_of_column,
)
from .topology import Edge

__all__ = ["MAX_PATHS", "Paths", "concatenate_paths", "route_paths"]

MAX_PATHS = 800  # about, between single layers; more are indistinguishable hairlines
FEW_ROWS = 150  # up to this many, every row of nodes has a path to each of its readers
# Paths between parallel branches cross. The larger this exponent, the fewer are drawn.
CROSSING_EXPONENT = 1.5
BAND_HEIGHT = (16.0, 84.0)  # px of a bundle: minimum, and where the most channels pass
BAND_FILL = 0.84  # of a bundle for its paths
BAND_SHARE = 0.8  # of a block's height for all bundles that enter it
STRAND_HEIGHT = 9.0  # px of a bundle per path
STRANDS = (3, 9)  # minimum and maximum of a bundle
STRAIGHT = 3.0  # px: a shorter way past the end of a wider column is not drawn as its own path


@dataclass(frozen=True)
class Paths:
    """Start and end of each path, px, and the nodes it stands for.

    Attributes:
        x, y: start, float (paths,).
        x1, y1: end, float (paths,).
        width: the width of the stroke at full weight, px, float (paths,).
        first, last: range of nodes of the whole network, int (paths,); ``last`` is exclusive.
    """

    x: np.ndarray
    y: np.ndarray
    x1: np.ndarray
    y1: np.ndarray
    width: np.ndarray
    first: np.ndarray
    last: np.ndarray


def concatenate_paths(parts: Sequence[Paths]) -> Paths:
    """Return the paths of all parts, in their order."""
    if not parts:
        none, no_nodes = np.zeros(0), np.zeros(0, int)
        return Paths(none, none, none, none, none, no_nodes, no_nodes)
    names = [field.name for field in fields(Paths)]
    return Paths(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def route_paths(
    units: Sequence[LayoutUnit], placement: Placement, connections: Connections
) -> Paths:
    """Return the paths of all edges that are drawn as paths."""
    router = _Router(units, placement, connections)
    for sources, readers in _junctions(connections.path_edges):
        router.route_through_junction(sources, readers)
    for edge in router.left:
        router.route(edge)
    return router.paths()


def _junctions(edges: Sequence[Edge]) -> list[tuple[list[int], list[int]]]:
    """Return several units that are all read by the same several units."""
    readers: dict[int, list[int]] = defaultdict(list)
    for a, b in edges:
        readers[a].append(b)
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for a, bs in readers.items():
        groups[tuple(sorted(bs))].append(a)
    return [(sources, list(bs)) for bs, sources in groups.items() if len(bs) > 1 < len(sources)]


class _Router:
    """Collects the paths of all edges."""

    def __init__(
        self, units: Sequence[LayoutUnit], placement: Placement, connections: Connections
    ) -> None:
        self.units, self.placement, self.connections = units, placement, connections
        self.columns, self.boxes = placement.columns, placement.boxes
        self.offsets = np.cumsum([0] + [column.n for column in self.columns])
        self.left = list(connections.path_edges)
        self._pieces: list[tuple[np.ndarray, ...]] = []
        self._most = max(connections.channels.values(), default=1)
        self._n_readers: dict[int, int] = defaultdict(int)
        self._readings: dict[int, list[int]] = defaultdict(list)
        self._left: dict[int, float] = {}
        self._right: dict[int, float] = {}
        for box, rank in zip(self.boxes, connections.ranks, strict=True):
            self._left[rank] = min(box.left, self._left.get(rank, box.left))
            self._right[rank] = max(box.right, self._right.get(rank, box.right))
        for a, b in connections.path_edges:
            self._n_readers[a] += 1
            self._readings[b].append(a)
        for b, sources in self._readings.items():
            sources.sort(key=lambda a: self._approach(a, b).middle)
        rows = sum(self.columns[units[a].first].rows for a in self._n_readers)
        self._are_few = rows <= FEW_ROWS
        self._share = min(1.0, MAX_PATHS / max(1, rows))

    def route(self, edge: Edge) -> None:
        """Add the paths of an edge."""
        starts = self._leave(edge, self._count(edge))
        if not any(self.units[i].is_block for i in edge):
            starts = fan_out_path_starts(starts, self.columns[self.units[edge[1]].first])
        x, y = self._arrive(edge, len(starts))
        self._add(edge, starts, x, y)

    def route_through_junction(self, sources: list[int], readers: list[int]) -> None:
        """Add the paths of a concatenation or a sum that several units read: all meet once."""
        rank = min(self.connections.ranks[b] for b in readers)
        ranks = self.connections.ranks
        x = (self._right[rank - 1] + self._left[rank]) / 2
        sources = sorted(sources, key=lambda a: self._approach(a, readers[0]).middle)
        bands = np.array([self._band((a, readers[0])) for a in sources])
        middle = float(np.mean([self.boxes[i].middle for i in (*sources, *readers)]))
        tops = middle - bands.sum() / 2 + np.cumsum([0.0, *bands])[:-1]
        for a, top, band in zip(sources, tops, bands, strict=True):
            for place, b in enumerate(readers):
                n = max(2, _n_paths(band) // (1 if place == 0 else 2))
                if self._are_few:
                    n = self._count((a, b))
                starts = self._leave((a, b), n)
                y = top + band * (np.arange(len(starts)) + 0.5) / len(starts)
                middle_x = np.full(len(starts), x)
                if place == 0:
                    self._add((a, b), starts, middle_x, y)
                start = replace(starts, x=middle_x, y=y)
                self._end(start, *self._arrive((a, b), len(starts)), ranks[b])
                self.left.remove((a, b))

    def paths(self) -> Paths:
        """Return the paths added so far."""
        return concatenate_paths([Paths(*piece) for piece in self._pieces])

    def _add(self, edge: Edge, starts: PathStarts, x1: np.ndarray, y1: np.ndarray) -> None:
        """Add paths to their ends, beside the units between."""
        ranks, (a, b) = self.connections.ranks, edge
        starts = self._past(starts, ranks[a])
        for rank in range(ranks[a] + 1, ranks[b]):
            lane = self.placement.path_lanes[PathLane(a, rank)]
            y = lane.top + lane.height * (np.arange(len(starts)) + 0.5) / len(starts)
            width = np.minimum(starts.width, lane.height / len(starts))
            self._append(starts, np.full(len(starts), lane.left), y)
            starts = replace(starts, x=np.full(len(starts), lane.left), y=y, width=width)
            self._append(starts, np.full(len(starts), lane.right), y)
            starts = replace(starts, x=np.full(len(starts), lane.right))
        self._end(starts, x1, y1, ranks[b])

    def _past(self, starts: PathStarts, rank: int) -> PathStarts:
        """Add straight paths past wider columns of the same rank, and return what continues."""
        right = self._right[rank]
        if right - starts.x.max() < STRAIGHT:
            return starts
        ahead = np.full(len(starts), right)
        self._append(starts, ahead, starts.y)
        return replace(starts, x=ahead)

    def _end(self, starts: PathStarts, x1: np.ndarray, y1: np.ndarray, rank: int) -> None:
        """Add paths to their ends: past wider columns of the same rank, they are straight."""
        left = self._left[rank]
        if x1.min() - left >= STRAIGHT and starts.x.max() < left:
            ahead = np.full(len(starts), left)
            self._append(starts, ahead, y1)
            starts = replace(starts, x=ahead, y=y1)
        self._append(starts, x1, y1)

    def _append(self, starts: PathStarts, x1: np.ndarray, y1: np.ndarray) -> None:
        self._pieces.append((starts.x, starts.y, x1, y1, starts.width, starts.first, starts.last))

    def _approach(self, a: int, b: int) -> Box:
        """Return where the paths from a come from, as seen from b."""
        rank = self.connections.ranks[b] - 1
        return self.placement.path_lanes.get(PathLane(a, rank), self.boxes[a])

    def _band(self, edge: Edge) -> float:
        """Return the height of the bundle of an edge, px: as thick as what passes."""
        low, high = BAND_HEIGHT
        share = float(np.sqrt(self.connections.channels[edge] / self._most))
        bounds = [self.boxes[i].height for i in edge if self.units[i].is_block]
        limit = min(bounds, default=high) * BAND_SHARE / len(self._readings[edge[1]])
        return min(max(low, high * share), limit)

    def _count(self, edge: Edge) -> int:
        """Return the number of paths of an edge."""
        a, b = edge
        if self.units[a].is_block:
            return _n_paths(self._band(edge))
        if self.units[b].is_block:
            return FAN
        rows = self.columns[self.units[a].first].rows
        if self._are_few:
            return rows
        exponent = CROSSING_EXPONENT if len(self._readings[b]) > 1 else 1.0
        return max(1, int(rows * self._share / self._n_readers[a] ** exponent))

    def _leave(self, edge: Edge, n: int) -> PathStarts:
        """Return the start of about ``n`` paths of an edge."""
        a, b = edge
        if self.units[a].is_block:
            return self._leave_block(edge, n)
        layer = self.units[a].first
        starts = path_starts_of_column(self.columns[layer], n, int(self.offsets[layer]))
        if not self.units[b].is_block:
            return starts
        band_width = max(MIN_PATH_WIDTH, BAND_FILL * self._band(edge) / len(starts))
        width = np.minimum(starts.width, band_width)
        return PathStarts(starts.x, starts.y, width, starts.first, starts.last)

    def _leave_block(self, edge: Edge, n: int) -> PathStarts:
        layers, box = self.connections.sources[edge], self.boxes[edge[0]]
        counts = _divide(n, [self.columns[i].n for i in layers])
        first, last = [], []
        for layer, count in zip(layers, counts, strict=True):
            nodes = self.columns[layer].n
            cuts = np.arange(count + 1) * nodes // count + int(self.offsets[layer])
            first.append(cuts[:-1])
            last.append(cuts[1:])
        n, band = sum(counts), self._band(edge)
        y = box.middle + band * ((np.arange(n) + 0.5) / n - 0.5)
        width = np.full(n, BAND_FILL * band / n)
        return PathStarts(
            np.full(n, box.right), y, width, np.concatenate(first), np.concatenate(last)
        )

    def _arrive(self, edge: Edge, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends of the ``n`` paths of an edge."""
        a, b = edge
        sources = self._readings[b]
        bands = np.array([self._band((source, b)) for source in sources])
        start, share = bands[: sources.index(a)].sum(), bands[sources.index(a)]
        places = (start + share * (np.arange(n) + 0.5) / n) / bands.sum()
        box = self.boxes[b]
        if self.units[b].is_block:
            return np.full(n, box.left), box.middle + bands.sum() * (places - 0.5)
        column = self.columns[self.units[b].first]
        node = (
            np.minimum((places * column.rows).astype(int), column.rows - 1) * column.nodes_per_row
        )
        half = (column.bar or column.size) / 2
        return column.x[node] - half + NODE_OVERLAP, column.y[node]


def _n_paths(band: float) -> int:
    return int(np.clip(round(band / STRAND_HEIGHT), *STRANDS))


def _divide(n: int, sizes: Sequence[int]) -> list[int]:
    """Return how many of ``n`` paths each source gets: in proportion, at least one, at most all."""
    total = max(1, sum(sizes))
    return [max(1, min(size, round(n * size / total))) for size in sizes]
