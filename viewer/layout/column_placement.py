"""Places one column per layer: ranks from left to right, lanes from top to bottom."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from revacnn_lightning.protocol.messages import Structure

from .columns import (
    BAR_WIDTH,
    EXPANDED_PITCH,
    SLOT_SHARE,
    Column,
    bar_column,
    common_dot_pitch,
    dot_column,
    fit_dot_pitch,
)

__all__ = ["Area", "place_columns"]

LANE_GAP = 34.0  # px between parallel branches, including a label
MIN_LANE_HEIGHT = 10.0  # px
BARS, BARS_CROWDED = 96, 64  # per column
MAX_BARS = 6000  # in all columns
MIN_BAR_PITCH = 3.0  # px
COLLAPSED_SHARE = 0.35  # minimum share of the width for layers that are not expanded
MIN_EXPANDED_PITCH = 3.0  # px


@dataclass(frozen=True)
class Area:
    """Space available for the columns, px."""

    width: float
    bottom: float
    top: float
    margin: float

    @property
    def height(self) -> float:
        return max(60.0, self.bottom - self.top)


@dataclass(frozen=True)
class _Lane:
    """Space available for one layer, px."""

    slot: float  # width
    middle: float
    height: float


def place_columns(
    structure: Structure,
    ranks: list[int],
    area: Area,
    density: str,
    expanded_layers: Collection[str],
) -> list[Column]:
    """Return the columns of all layers.

    Args:
        ranks: of the layers, without gaps.
        density: ``roomy``, ``normal`` or ``crowded``.
        expanded_layers: names of the layers whose filters are all shown.
    """
    by_rank: list[list[int]] = [[] for _ in range(max(ranks, default=-1) + 1)]
    for i, rank in enumerate(ranks):
        by_rank[rank].append(i)
    lanes = _assign_lanes(structure, by_rank, area, expanded_layers)
    widths = [len(layer.filter_ids) for layer in structure.layers]
    largest_pitch = common_dot_pitch(
        [(widths[i], lane.slot, lane.height) for i, lane in lanes.items()]
    )
    widest, max_bars = max(widths, default=1), MAX_BARS // max(1, len(lanes))
    columns = []
    for i, layer in enumerate(structure.layers):
        n, lane = widths[i], lanes[i]
        if layer.name in expanded_layers:
            columns.append(_expanded_column(i, n, lane))
        elif pitch := _dot_pitch(n, lane, density, largest_pitch):
            columns.append(dot_column(i, n, pitch, lane.middle, lane.height))
        else:
            columns.append(_bar_column(i, n, n / widest, lane, density, max_bars))
    return _distribute(columns, by_rank, area)


def _assign_lanes(
    structure: Structure, by_rank: list[list[int]], area: Area, expanded_layers: Collection[str]
) -> dict[int, _Lane]:
    """Return the lane of each layer. Layers of the same rank are stacked."""
    slots = _slot_widths(structure, by_rank, area, expanded_layers)
    lanes = {}
    for slot, layers in zip(slots, by_rank, strict=True):
        if len(layers) == 1:
            lanes[layers[0]] = _Lane(slot, area.top + area.height / 2, area.height)
            continue
        free = area.height - LANE_GAP * (len(layers) - 1)
        shares = np.sqrt([len(structure.layers[layer].filter_ids) for layer in layers])
        heights = np.maximum(MIN_LANE_HEIGHT, free * shares / shares.sum())
        tops = area.top + np.cumsum([0.0, *(heights + LANE_GAP)])[:-1]
        for layer, top, height in zip(layers, tops, heights, strict=True):
            lanes[layer] = _Lane(slot, top + height / 2, height)
    return lanes


def _slot_widths(
    structure: Structure, by_rank: list[list[int]], area: Area, expanded_layers: Collection[str]
) -> list[float]:
    """Return the width of each rank. Ranks with expanded layers are as wide as they need."""
    free = area.width - 2 * area.margin
    needed = []
    for layers in by_rank:
        need = 0.0
        for layer in layers:
            if structure.layers[layer].name in expanded_layers:
                n = len(structure.layers[layer].filter_ids)
                across = np.ceil(n * EXPANDED_PITCH / area.height)
                need = max(need, across * EXPANDED_PITCH / SLOT_SHARE * 0.6)
        needed.append(need)
    n_collapsed = sum(1 for need in needed if need == 0)
    rest = max(free * COLLAPSED_SHARE, free - sum(needed)) if n_collapsed else 0.0
    scale = min(1.0, (free - rest) / max(1.0, sum(needed)))
    return [need * scale or rest / max(1, n_collapsed) for need in needed]


def _expanded_column(layer: int, n: int, lane: _Lane) -> Column:
    """Return dots for all filters of an expanded layer."""
    pitch = EXPANDED_PITCH
    while pitch > MIN_EXPANDED_PITCH and np.ceil(n * pitch / lane.height) * pitch > lane.slot * 0.9:
        pitch -= 0.25
    return dot_column(layer, n, pitch, lane.middle, lane.height)


def _dot_pitch(n: int, lane: _Lane, density: str, largest: float) -> float:
    """Return the distance of the dots in a column, px; 0 if it has to show bars."""
    if density == "crowded":
        return 0.0
    return fit_dot_pitch(n, lane.slot, lane.height, largest)


def _bar_column(
    layer: int, n: int, share: float, lane: _Lane, density: str, max_bars: int
) -> Column:
    """Return bars; the column's height shows the layer's share of the widest layer."""
    base, bars = (0.52, BARS_CROWDED) if density == "crowded" else (0.30, BARS)
    height = lane.height * (base + (1 - base) * np.sqrt(share))
    bars = max(1, min(bars, max_bars, int(height / MIN_BAR_PITCH)))
    return bar_column(layer, n, bars, min(BAR_WIDTH, lane.slot * 0.5), lane.middle, height)


def _distribute(columns: list[Column], by_rank: list[list[int]], area: Area) -> list[Column]:
    """Return the columns moved to their x, with equal gaps between the ranks."""
    widths = [max(columns[i].right - columns[i].left for i in layers) for layers in by_rank]
    free = area.width - 2 * area.margin
    gap = (free - sum(widths)) / (len(by_rank) - 1) if len(by_rank) > 1 else 0.0
    x = area.margin if len(by_rank) > 1 else area.width / 2 - sum(widths) / 2
    placed = list(columns)
    for layers, width in zip(by_rank, widths, strict=True):
        for i in layers:
            placed[i] = replace(columns[i], x=columns[i].x + x + width / 2)
        x += width + gap
    return placed
