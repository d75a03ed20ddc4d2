"""Places layers and closed blocks: ranks from left to right, lanes from top to bottom."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from revacnn_lightning.protocol.messages import Structure

from .block_columns import place_closed_block
from .boxes import Box, ColumnArea, PathLane, Placement
from .columns import (
    BAR_WIDTH,
    EXPANDED_PITCH,
    SLOT_SHARE,
    Column,
    bar_column,
    common_pitch_of_single_columns,
    dot_column,
    fit_dot_pitch,
)
from .folding import LayoutUnit

__all__ = ["place_units"]

LANE_GAP = 34.0  # px between parallel branches, including a label
MIN_LANE_HEIGHT = 10.0  # px
VIA_HEIGHT = 26.0  # px of a lane that only lets paths pass
BARS, BARS_CROWDED = 96, 64  # per column
MAX_BARS = 6000  # in all columns
MIN_BAR_PITCH = 3.0  # px
COLLAPSED_SHARE = 0.35  # minimum share of the width for layers that are not expanded
MIN_EXPANDED_PITCH = 3.0  # px
BLOCK_SLOT_SHARE = 0.58  # of a closed block's width for its frame; the rest is for the paths
BLOCK_HEIGHT = (0.42, 0.94)  # of a lane, for a block with hardly any filters and with the most
LARGEST_WEIGHT = 3.2  # width of a block with many layers, relative to that of a layer


@dataclass(frozen=True)
class _Lane:
    """Space available for one unit, px."""

    slot: float  # width
    middle: float
    height: float


def place_units(
    structure: Structure,
    units: Sequence[LayoutUnit],
    ranks: Sequence[int],
    path_lanes: Collection[PathLane],
    area: ColumnArea,
    density: str,
    expanded_layers: Collection[str],
) -> Placement:
    """Return the places of all units and their layers.

    Args:
        ranks: the rank of each unit. There are no gaps.
        path_lanes: the lanes that paths need between the units.
        density: ``roomy``, ``normal`` or ``crowded``.
        expanded_layers: names of the layers whose filters are all shown.
    """
    by_rank: list[list[int | PathLane]] = [[] for _ in range(max(ranks, default=-1) + 1)]
    for i, rank in enumerate(ranks):
        by_rank[rank].append(i)
    for lane in path_lanes:
        by_rank[lane.rank].append(lane)
    for members in by_rank:  # branches keep their order: that of the forward pass
        members.sort(key=lambda one: one.source if isinstance(one, PathLane) else one)
    sizes = _Sizes(structure, units, density, expanded_layers)
    lanes = _assign_lanes(sizes, by_rank, area)
    drawn = sizes.draw(lanes)
    return _distribute(drawn, by_rank, lanes, area)


class _Sizes:
    """The widths of layers, and how units are drawn in their lanes."""

    def __init__(
        self,
        structure: Structure,
        units: Sequence[LayoutUnit],
        density: str,
        expanded_layers: Collection[str],
    ) -> None:
        self.units = units
        self.density = density
        self.widths = [len(layer.filter_ids) for layer in structure.layers]
        self.filters = [sum(self.widths[i] for i in unit.layers) for unit in units]
        self.is_expanded = [not unit.is_block and unit.name in expanded_layers for unit in units]

    def weight(self, unit: int) -> float:
        """Return the width of a unit relative to that of a layer."""
        n = len(self.units[unit].layers)
        return 1.0 if n == 1 else min(LARGEST_WEIGHT, max(1.0, math.sqrt(n) / 1.9))

    def draw(self, lanes: dict[int | PathLane, _Lane]) -> dict[int, tuple[list[Column], Box]]:
        """Return the columns and the box of each unit, centered on x = 0."""
        placed = {i: lane for i, lane in lanes.items() if not isinstance(i, PathLane)}
        single = [i for i in placed if not self.units[i].is_block]
        largest_pitch = common_pitch_of_single_columns(
            [(self.filters[i], placed[i].height) for i in single]
        )
        widest = max((self.filters[i] for i in single), default=1)
        most = max(self.filters, default=1)
        n_folded = sum(len(unit.layers) for unit in self.units if unit.is_block)
        drawn = {}
        for i, lane in placed.items():
            if self.units[i].is_block:
                drawn[i] = self._draw_block(i, lane, self.filters[i] / most, n_folded)
            else:
                column = self._draw_layer(i, lane, largest_pitch, widest, len(single))
                drawn[i] = [column], _bounds(column)
        return drawn

    def _draw_block(
        self, unit: int, lane: _Lane, share: float, n_folded: int
    ) -> tuple[list[Column], Box]:
        low, high = BLOCK_HEIGHT
        height = max(24.0, lane.height * (low + (high - low) * math.sqrt(share)))
        block = place_closed_block(
            self.units[unit].first,
            [self.widths[i] for i in self.units[unit].layers],
            max_width=lane.slot * BLOCK_SLOT_SHARE,
            center_y=lane.middle,
            height=min(height, max(24.0, lane.height)),
            n_folded_layers=n_folded,
        )
        half = block.height / 2
        box = Box(-block.width / 2, block.width / 2, lane.middle - half, lane.middle + half)
        return block.columns, box

    def _draw_layer(
        self, unit: int, lane: _Lane, largest_pitch: float, widest: int, n_layers: int
    ) -> Column:
        layer, n = self.units[unit].first, self.filters[unit]
        if self.is_expanded[unit]:
            return _expanded_column(layer, n, lane)
        pitch = 0.0
        if self.density != "crowded":
            pitch = fit_dot_pitch(n, lane.slot, lane.height, largest_pitch)
        if pitch:
            return dot_column(layer, n, pitch, lane.middle, lane.height)
        return _bar_column(layer, n, n / widest, lane, self.density, MAX_BARS // n_layers)


def _bounds(column: Column) -> Box:
    return Box(column.left, column.right, column.top, column.bottom)


def _assign_lanes(
    sizes: _Sizes, by_rank: list[list[int | PathLane]], area: ColumnArea
) -> dict[int | PathLane, _Lane]:
    """Return the lane of each unit, and those of the paths. Those of the same rank are stacked."""
    slots = _slot_widths(sizes, by_rank, area)
    lanes: dict[int | PathLane, _Lane] = {}
    for slot, members in zip(slots, by_rank, strict=True):
        if len(members) == 1:
            lanes[members[0]] = _Lane(slot, area.top + area.height / 2, area.height)
            continue
        shares = np.array([0.0 if isinstance(m, PathLane) else sizes.filters[m] for m in members])
        fixed = np.where(shares == 0, VIA_HEIGHT, 0.0)
        free = area.height - LANE_GAP * (len(members) - 1) - fixed.sum()
        shares = np.sqrt(shares)
        heights = np.maximum(MIN_LANE_HEIGHT, fixed + free * shares / max(1.0, shares.sum()))
        tops = area.top + np.cumsum([0.0, *(heights + LANE_GAP)])[:-1]
        for member, top, height in zip(members, tops, heights, strict=True):
            lanes[member] = _Lane(slot, float(top + height / 2), float(height))
    return lanes


def _slot_widths(
    sizes: _Sizes, by_rank: list[list[int | PathLane]], area: ColumnArea
) -> list[float]:
    """Return the width of each rank. Ranks with expanded layers are as wide as they need."""
    free = area.width - 2 * area.margin
    needed, weights = [], []
    for members in by_rank:
        units = [one for one in members if not isinstance(one, PathLane)]
        weights.append(max((sizes.weight(i) for i in units), default=1.0))
        expanded = [sizes.filters[i] for i in units if sizes.is_expanded[i]]
        across = max((np.ceil(n * EXPANDED_PITCH / area.height) for n in expanded), default=0.0)
        needed.append(float(across) * EXPANDED_PITCH / SLOT_SHARE * 0.6)
    collapsed = sum(w for w, need in zip(weights, needed, strict=True) if need == 0)
    rest = max(free * COLLAPSED_SHARE, free - sum(needed)) if collapsed else 0.0
    scale = min(1.0, (free - rest) / max(1.0, sum(needed)))
    return [
        need * scale or rest * weight / max(1.0, collapsed)
        for need, weight in zip(needed, weights, strict=True)
    ]


def _expanded_column(layer: int, n: int, lane: _Lane) -> Column:
    """Return dots for all filters of an expanded layer."""
    pitch = EXPANDED_PITCH
    while pitch > MIN_EXPANDED_PITCH and np.ceil(n * pitch / lane.height) * pitch > lane.slot * 0.9:
        pitch -= 0.25
    return dot_column(layer, n, pitch, lane.middle, lane.height)


def _bar_column(
    layer: int, n: int, share: float, lane: _Lane, density: str, max_bars: int
) -> Column:
    """Return bars; the column's height shows the layer's share of the widest layer."""
    base, bars = (0.52, BARS_CROWDED) if density == "crowded" else (0.30, BARS)
    height = lane.height * (base + (1 - base) * np.sqrt(share))
    bars = max(1, min(bars, max_bars, int(height / MIN_BAR_PITCH)))
    return bar_column(layer, n, bars, min(BAR_WIDTH, lane.slot * 0.5), lane.middle, height)


def _distribute(
    drawn: dict[int, tuple[list[Column], Box]],
    by_rank: list[list[int | PathLane]],
    lanes: dict[int | PathLane, _Lane],
    area: ColumnArea,
) -> Placement:
    """Return everything moved to its x, with equal gaps between the ranks."""
    widths = []
    for members in by_rank:
        boxes_here = [drawn[one][1] for one in members if not isinstance(one, PathLane)]
        widths.append(max((box.right - box.left for box in boxes_here), default=0.0))
    free = area.width - 2 * area.margin
    gap = (free - sum(widths)) / (len(by_rank) - 1) if len(by_rank) > 1 else 0.0
    x = area.left
    x += area.margin if len(by_rank) > 1 else area.width / 2 - sum(widths) / 2
    columns: dict[int, Column] = {}
    boxes: dict[int, Box] = {}
    path_lanes: dict[PathLane, Box] = {}
    split_x = 0.0
    for rank, (members, width) in enumerate(zip(by_rank, widths, strict=True)):
        if rank and rank == area.split:
            split_x = x - gap / 2
            x += area.split_width
        for one in members:
            if isinstance(one, PathLane):
                half = lanes[one].height / 2
                middle = lanes[one].middle
                path_lanes[one] = Box(x, x + width, middle - half, middle + half)
                continue
            parts, box = drawn[one]
            dx = x + width / 2 - (box.left + box.right) / 2
            boxes[one] = replace(box, left=box.left + dx, right=box.right + dx)
            columns |= {part.layer: part.shifted(dx) for part in parts}
        x += width + gap
    in_order = [columns[i] for i in sorted(columns)], [boxes[i] for i in sorted(boxes)]
    return Placement(*in_order, path_lanes, split_x)
