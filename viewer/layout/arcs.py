"""Arcs: connections that skip ranks, as lines around what they skip.

An arc leaves its source on the right, runs below the columns that it skips, and ends at its reader
on the left. Where very many would run side by side, as in a dense block, they share one line that
is as thick as what passes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from .boxes import Box, Placement
from .connections import Connections
from .folding import LayoutUnit
from .topology import Edge

__all__ = ["Arcs", "arc_levels", "arcs_height", "route_arcs"]

LEVEL_HEIGHT = 12.0  # px between arcs one below the other
FIRST_LEVEL = 12.0  # px between the columns and the nearest arc
MAX_LEVELS = 6  # if arcs need more, they share one line
SHARED_HEIGHT = 34.0  # px
ARC_WIDTH = (1.6, 4.5)  # px: minimum, and where the most channels pass
SHARED_WIDTH = 15.0  # px of a shared line where the most channels pass
OUT, IN = 0.80, 0.20  # where in the gap beside a column an arc turns, as a share of the gap
SPREAD = 0.24  # of the gap, for the arcs of all levels
SHARED_OUT, SHARED_IN = 0.3, 0.7  # the same for a shared line: what leaves comes first
EDGE_OUT, EDGE_IN = 5.0, 14.0  # px above the lower end of a column: where arcs begin and end
MERGE = 9.0  # px along a shared line


@dataclass(frozen=True)
class Arcs:
    """Lines from (x0, y0) to (x1, y1), px, each (arcs,).

    A line turns down at x = ``a``, runs along y = ``level``, and turns up at x = ``b``.

    Attributes:
        width: the width of the stroke at full weight, px.
        first, last: range of nodes of the whole network that it stands for; ``last`` is exclusive.
        is_sum: whether its reader adds it, which is how a residual connection ends.
    """

    x0: np.ndarray
    y0: np.ndarray
    a: np.ndarray
    level: np.ndarray
    b: np.ndarray
    x1: np.ndarray
    y1: np.ndarray
    width: np.ndarray
    first: np.ndarray
    last: np.ndarray
    is_sum: np.ndarray


def arc_levels(arcs: Sequence[Edge], ranks: Sequence[int]) -> list[int]:
    """Return the level of each arc, from 1: arcs side by side share one, outer ones lie lower."""
    levels = [0] * len(arcs)
    spans = [(ranks[a], ranks[b]) for a, b in arcs]
    for i in sorted(range(len(arcs)), key=lambda i: spans[i][1] - spans[i][0]):
        start, end = spans[i]
        taken = {
            level
            for level, (other_start, other_end) in zip(levels, spans, strict=True)
            if level and start < other_end - 1 and other_start < end - 1
        }
        levels[i] = 1 + max(taken, default=0)
    return levels


def arcs_height(connections: Connections) -> float:
    """Return the space that the arcs need below the columns, px."""
    if not connections.arcs:
        return 0.0
    levels = max(arc_levels(connections.arcs, connections.ranks))
    return SHARED_HEIGHT if levels > MAX_LEVELS else FIRST_LEVEL + LEVEL_HEIGHT * levels


def route_arcs(units: Sequence[LayoutUnit], placement: Placement, connections: Connections) -> Arcs:
    """Return the lines of all arcs."""
    router = _ArcRouter(units, placement, connections)
    for group in _overlapping(connections.arcs, connections.ranks):
        levels = arc_levels(group, connections.ranks)
        if max(levels) > MAX_LEVELS:
            router.share(group)
        else:
            router.draw(group, levels)
    columns = np.array(router.rows, float).reshape(-1, len(fields(Arcs))).T
    return Arcs(*columns[:-3], *(column.astype(int) for column in columns[-3:]))


def _overlapping(arcs: Sequence[Edge], ranks: Sequence[int]) -> list[list[Edge]]:
    """Return the arcs in groups, so that arcs of different groups run over different ranks."""
    groups: list[list[Edge]] = []
    end = -1
    for a, b in sorted(arcs, key=lambda arc: (ranks[arc[0]], ranks[arc[1]])):
        if not groups or ranks[a] >= end - 1:
            groups.append([])
        groups[-1].append((a, b))
        end = max(end, ranks[b])
    return groups


class _ArcRouter:
    """Collects the lines; each row has the fields of `Arcs`."""

    def __init__(
        self, units: Sequence[LayoutUnit], placement: Placement, connections: Connections
    ) -> None:
        self.units, self.connections = units, connections
        self.boxes = placement.boxes
        self.offsets = np.cumsum([0] + [column.n for column in placement.columns])
        self.rows: list[tuple[float, ...]] = []
        self._most = max((connections.channels[arc] for arc in connections.arcs), default=1)
        by_rank: dict[int, list[Box]] = defaultdict(list)
        for box, rank in zip(self.boxes, connections.ranks, strict=True):
            by_rank[rank].append(box)
        self._left = {rank: min(box.left for box in boxes) for rank, boxes in by_rank.items()}
        self._right = {rank: max(box.right for box in boxes) for rank, boxes in by_rank.items()}
        self._bottom = {rank: max(box.bottom for box in boxes) for rank, boxes in by_rank.items()}

    def draw(self, arcs: Sequence[Edge], levels: Sequence[int]) -> None:
        """Add a line per arc."""
        most = max(levels)
        for (a, b), level in zip(arcs, levels, strict=True):
            skipped = range(self.connections.ranks[a] + 1, self.connections.ranks[b])
            bottom = max(self._bottom[rank] for rank in skipped)
            y = bottom + FIRST_LEVEL + LEVEL_HEIGHT * (level - 1)
            spread = SPREAD * (level - 1) / max(1, most)
            x0, y0, turn = self._out(a, OUT - spread)
            x1, y1, back = self._in(b, IN + spread)
            low, high = ARC_WIDTH
            share = float(np.sqrt(self.connections.channels[a, b] / self._most))
            width = low + (high - low) * share
            nodes = self._nodes(self.connections.sources[a, b])
            is_sum = b not in self.connections.concatenating
            self.rows.append((x0, y0, turn, y, back, x1, y1, width, *nodes, is_sum))

    def share(self, arcs: Sequence[Edge]) -> None:
        """Add one line for all arcs, with a branch from each source and one to each reader."""
        ranks = self.connections.ranks
        covered = range(min(ranks[a] for a, _ in arcs), max(ranks[b] for _, b in arcs) + 1)
        y = max(self._bottom[rank] for rank in covered) + FIRST_LEVEL + MERGE
        last_reader: dict[int, int] = {}
        for a, b in sorted(arcs, key=lambda arc: ranks[arc[1]]):
            last_reader[a] = b
        self._add_shared_line(last_reader, covered, y)
        for a, b in last_reader.items():
            x0, y0, turn = self._out(a, SHARED_OUT)
            nodes, end = self._nodes(self.connections.sources[a, b]), turn + MERGE
            self.rows.append((x0, y0, turn, y, end, end, y, ARC_WIDTH[0], *nodes, 0))
        for b in sorted({b for _, b in arcs}):
            x1, y1, back = self._in(b, SHARED_IN)
            span, start = self._span([a for a, reader in arcs if reader == b]), back - MERGE
            self.rows.append((start, y, start, y, back, x1, y1, ARC_WIDTH[0], *span, 0))

    def _add_shared_line(self, last_reader: dict[int, int], covered: range, y: float) -> None:
        """Add the pieces of a line from gap to gap, each as thick as what passes there."""
        ranks, channels = self.connections.ranks, self.connections.channels
        pieces = {}  # sources that pass the columns of the next rank
        for rank in covered:
            some = [a for a, b in last_reader.items() if ranks[a] <= rank < ranks[b] - 1]
            if some:
                pieces[rank] = some, sum(channels[a, last_reader[a]] for a in some)
        most = max(passing for _, passing in pieces.values())
        for rank, (some, passing) in pieces.items():
            ends = not any(ranks[last_reader[a]] > rank + 2 for a in some)
            x0 = self._gap_x(rank, SHARED_OUT)
            x1 = self._gap_x(rank + 1, SHARED_IN if ends else SHARED_OUT)
            width = max(ARC_WIDTH[0], SHARED_WIDTH * passing / most)
            self.rows.append((x0, y, x0, y, x1, x1, y, width, *self._span(some), 0))

    def _gap_x(self, rank: int, share: float) -> float:
        """Return a place in the gap after a rank."""
        return self._right[rank] + share * (self._left[rank + 1] - self._right[rank])

    def _out(self, a: int, place: float) -> tuple[float, float, float]:
        """Return where an arc begins, and the x at which it turns down."""
        box = self.boxes[a]
        y = box.bottom - min(EDGE_OUT, box.height / 4)
        return box.right, y, self._gap_x(self.connections.ranks[a], place)

    def _in(self, b: int, place: float) -> tuple[float, float, float]:
        """Return where an arc ends, and the x at which it turns up."""
        box = self.boxes[b]
        y = box.bottom - min(EDGE_IN, box.height / 3)
        return box.left, y, self._gap_x(self.connections.ranks[b] - 1, place)

    def _nodes(self, layers: Sequence[int]) -> tuple[int, int]:
        """Return the range of nodes of some layers."""
        return int(self.offsets[min(layers)]), int(self.offsets[max(layers) + 1])

    def _span(self, sources: Sequence[int]) -> tuple[int, int]:
        """Return the range of nodes of some units."""
        return self._nodes([layer for a in sources for layer in self.units[a].layers])
