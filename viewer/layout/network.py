"""The whole network: places from left to right, lanes from top to bottom, paths between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from revacnn_lightning.protocol.messages import Structure

from .columns import (
    BAR_WIDTH,
    OPEN_PITCH,
    PITCH,
    SLOT_SHARE,
    Column,
    comfortable_pitch,
    dot_pitch,
    dots,
    strip,
)
from .stages import find_stages, layers_of
from .titles import StageBox, boxes, labels_of
from .topology import Edge, concats, flows_and_arcs, forward_edges, nesting, ranks

__all__ = ["MANY_ARCS", "NetworkLayout", "Paths", "StageBox", "compute_layout", "stage_layers"]

ROOMY = 8  # up to so many places there is room for large headers
CROWDED = 30  # from so many places on, all layers are strips without headers
NARROW = 40.0  # px of a place: below, headers would lie over each other
MAX_PATHS = 2500  # more cannot be redrawn at the data rate (20 000: 1.6 times a second)
LANE_GAP = 34.0  # px between parallel branches, with a label in it
MANY_ARCS = 60  # as concatenations have them
ROOM_FOR_ARCS = 44.0  # px, so that they fan out
ROOM_OF_LEVEL = 15.0  # px, so that an arc hangs below those that it spans
BARS, BARS_CROWDED = 96, 64
MAX_BARS = 6000  # in all, on screen
CLOSED_SHARE = 0.35  # of the view's width, at least, for the layers that are not opened
FEW = 150  # nodes, of all layers that feed others
CROSSING = 1.5  # paths of branches that feed branches cross: the more, the fewer of them
THICKEST = 3.8  # px: an ordinary path at its thickest
THINNEST = 0.7  # of that, where hundreds of filters begin and end in a column


@dataclass(frozen=True)
class Paths:
    """Paths from one layer's nodes to another layer: the start and the end of each, px.

    ``first`` and ``last`` are the range of nodes (of the whole network) a path stands for.
    """

    x: np.ndarray
    y: np.ndarray
    x1: np.ndarray
    y1: np.ndarray
    first: np.ndarray
    last: np.ndarray


@dataclass(frozen=True)
class NetworkLayout:
    """Pixel places of everything; y points down."""

    width: float
    height: float
    columns: list[Column]  # one per layer
    labels: list[str]  # one per layer
    stages: list[StageBox]
    paths: Paths
    arcs: list[Edge]
    levels: list[int]  # of each arc, see `nesting`
    density: str  # roomy, normal, crowded: how much is written above a column
    top: float
    bottom: float
    ranks: list[int] = field(default_factory=list)

    @property
    def path_width(self) -> float:
        """How much thicker paths are drawn where they have more room than usual, or less."""
        if any(column.bar for column in self.columns) or not len(self.paths.x):
            return 1.0
        apart = np.diff(np.sort(self.paths.y1))
        room = float(np.median(apart[apart > 0])) if np.any(apart > 0) else PITCH
        return float(np.clip(room * 0.55 / THICKEST, THINNEST, 2.2))

    @cached_property
    def node_offsets(self) -> np.ndarray:
        """Where each layer's nodes begin, (layers + 1,)."""
        return np.cumsum([0] + [column.n for column in self.columns])

    def first_filters(self, offsets: np.ndarray) -> np.ndarray:
        """For each node, where its filters begin in the flat arrays, (nodes,)."""
        parts = [offsets[c.layer] + c.first[:-1] for c in self.columns]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def compute_layout(
    structure: Structure, width: float, height: float, opened: Collection[str] = ()
) -> NetworkLayout:
    """Lay out a network in a view of this size; layers named in ``opened`` show every filter."""
    layers = structure.layers
    names = [layer.name for layer in layers]
    edges = forward_edges(structure)
    rank = ranks(len(layers), edges)
    n_places = max(rank, default=-1) + 1
    density = _density(n_places, width)
    stages = find_stages(names, rank) if layers else []
    concat = concats(structure, edges)
    flows, arcs = flows_and_arcs(edges, rank, concat)
    top, bottom = _margins(density, bool(stages))
    many = len(arcs) > MANY_ARCS
    levels = [1] * len(arcs) if many else nesting(arcs, rank)
    bottom += ROOM_FOR_ARCS if many else ROOM_OF_LEVEL * (max(levels, default=1) - 1)
    labels = labels_of(names, stages, density, width / max(1, n_places))
    area = _Area(width, height - bottom, top, 58.0 if density == "roomy" else 24.0)
    columns = _columns(structure, rank, n_places, area, density, opened)
    return NetworkLayout(
        width=width,
        height=height,
        columns=columns,
        labels=labels,
        stages=boxes(stages, rank, columns, density),
        paths=_paths(columns, flows),
        arcs=arcs,
        levels=levels,
        density=density,
        top=top,
        bottom=bottom,
        ranks=rank,
    )


def stage_layers(structure: Structure, layer: str) -> list[str]:
    """The layers that open and close together with this one as its stage."""
    names = [one.name for one in structure.layers]
    rank = ranks(len(names), forward_edges(structure))
    return layers_of(layer, find_stages(names, rank), names)


@dataclass(frozen=True)
class _Area:
    """What the columns may fill."""

    width: float
    bottom: float
    top: float
    margin: float

    @property
    def height(self) -> float:
        return max(60.0, self.bottom - self.top)


def _density(n_places: int, width: float) -> str:
    """How much can be written above each of so many places."""
    if n_places > CROWDED or width < NARROW * n_places:
        return "crowded"
    return "roomy" if n_places <= ROOMY else "normal"


def _margins(density: str, staged: bool) -> tuple[float, float]:
    """Room above for headers, room below for arcs and block names."""
    if density == "roomy":
        return (104.0 if staged else 84.0), 26.0
    if density == "normal":
        return 86.0, 34.0
    return (58.0 if staged else 48.0), 30.0


def _columns(
    structure: Structure,
    rank: list[int],
    n_places: int,
    area: _Area,
    density: str,
    opened: Collection[str],
) -> list[Column]:
    places: list[list[int]] = [[] for _ in range(n_places)]
    for layer, place in enumerate(rank):
        places[place].append(layer)
    slots = _slots(structure, places, area, opened)
    widest = max((len(layer.filter_ids) for layer in structure.layers), default=1)
    lanes = {
        layer: (slots[place], middle, height)
        for place, members in enumerate(places)
        for layer, (middle, height) in _lanes(structure, members, area)
    }
    largest = comfortable_pitch(
        [
            (len(structure.layers[k].filter_ids), slot, height)
            for k, (slot, _, height) in lanes.items()
        ]
    )
    most = MAX_BARS // max(1, len(lanes))
    made: dict[int, Column] = {}
    for place, members in enumerate(places):
        for layer in members:
            _, middle, height = lanes[layer]
            n = len(structure.layers[layer].filter_ids)
            is_open = structure.layers[layer].name in opened
            made[layer] = _column(
                layer, n, n / widest, slots[place], middle, height, density, is_open, largest, most
            )
    _spread([[made[layer] for layer in members] for members in places], made, area)
    return [made[layer] for layer in range(len(structure.layers))]


def _slots(
    structure: Structure, places: list[list[int]], area: _Area, opened: Collection[str]
) -> list[float]:
    """Width of each place, before its columns are moved to their final x; open ones take more."""
    free = area.width - 2 * area.margin
    wanted = []
    for members in places:
        need = 0.0
        for layer in members:
            if structure.layers[layer].name in opened:
                across = np.ceil(len(structure.layers[layer].filter_ids) * OPEN_PITCH / area.height)
                need = max(need, across * OPEN_PITCH / SLOT_SHARE * 0.6)
        wanted.append(need)
    closed = sum(1 for need in wanted if need == 0)
    rest = max(free * CLOSED_SHARE, free - sum(wanted)) if closed else 0.0
    fit = min(1.0, (free - rest) / max(1.0, sum(wanted)))
    return [need * fit or rest / max(1, closed) for need in wanted]


def _lanes(
    structure: Structure, members: list[int], area: _Area
) -> list[tuple[int, tuple[float, float]]]:
    """Middle and height of each of the layers that stand at one place, one above the other."""
    if len(members) == 1:
        return [(members[0], (area.top + area.height / 2, area.height))]
    free = area.height - LANE_GAP * (len(members) - 1)
    shares = np.sqrt([len(structure.layers[layer].filter_ids) for layer in members])
    heights = np.maximum(10.0, free * shares / shares.sum())
    tops = area.top + np.cumsum([0.0, *(heights + LANE_GAP)])[:-1]
    return [
        (layer, (top + height / 2, height))
        for layer, top, height in zip(members, tops, heights, strict=True)
    ]


def _column(
    layer: int,
    n: int,
    share: float,
    slot: float,
    middle: float,
    height: float,
    density: str,
    is_open: bool,
    largest: float,
    most_bars: int,
) -> Column:
    """Dots if they fit, else a strip whose height tells how wide the layer is."""
    if is_open:
        pitch = OPEN_PITCH
        while pitch > 3.0 and np.ceil(n * pitch / height) * pitch > slot * 0.9:
            pitch -= 0.25
        return dots(layer, n, pitch, 0.0, middle, height)
    pitch = 0.0 if density == "crowded" else dot_pitch(n, slot, height, largest)
    if pitch > 0:
        return dots(layer, n, pitch, 0.0, middle, height)
    base, bars = (0.52, BARS_CROWDED) if density == "crowded" else (0.30, BARS)
    height *= base + (1 - base) * np.sqrt(share)
    width = min(BAR_WIDTH, slot * 0.5)
    bars = max(1, min(bars, most_bars, int(height / 3)))
    return strip(layer, n, bars, width, 0.0, middle, height)


def _spread(places: list[list[Column]], made: dict[int, Column], area: _Area) -> None:
    """Move the columns to their x, with equal gaps between the places."""
    widths = [max(column.right - column.left for column in members) for members in places]
    free = area.width - 2 * area.margin
    gap = (free - sum(widths)) / (len(places) - 1) if len(places) > 1 else 0.0
    x = area.margin if len(places) > 1 else area.width / 2 - sum(widths) / 2
    for members, width in zip(places, widths, strict=True):
        for column in members:
            made[column.layer] = Column(
                column.layer,
                column.x + x + width / 2,
                column.y,
                column.size,
                column.bar,
                column.first,
            )
        x += width + gap


def _paths(columns: list[Column], flows: list[Edge]) -> Paths:
    """Each node's path to its proportional place in the next layer, at most `MAX_PATHS` in all.

    Where a layer feeds several, its paths are shared out among them: a path then stands for as
    many neighbouring filters. All of them to each would be a blot, unless they are few.
    """
    ways, into = Counter(a for a, _ in flows), Counter(b for _, b in flows)
    total = sum(columns[a].n for a in ways)
    keep = min(1.0, MAX_PATHS / max(1, total))
    offsets = np.cumsum([0] + [column.n for column in columns])
    parts = []
    for a, b in flows:
        start, end = columns[a], columns[b]
        crossing = 0.0 if total <= FEW else CROSSING if into[b] > 1 else 1.0
        count = max(1, int(start.n * keep / ways[a] ** crossing))
        cut = np.arange(count + 1) * start.n // count
        order = np.argsort(start.y, kind="stable")
        place = np.empty(start.n)
        place[order] = (np.arange(start.n) + 0.5) / start.n
        middle = (cut[:-1] + cut[1:] - 1) // 2
        inside = end.y.min() + (end.y.max() - end.y.min()) * place[middle]
        parts.append(
            (
                start.x[middle],
                start.y[middle],
                np.full(count, end.left - 2),
                inside,
                offsets[a] + cut[:-1],
                offsets[a] + cut[1:],
            )
        )
    if not parts:
        empty = np.zeros(0)
        return Paths(empty, empty, empty, empty, empty.astype(int), empty.astype(int))
    return Paths(*(np.concatenate(column) for column in zip(*parts, strict=True)))
