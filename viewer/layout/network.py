"""The layout of the whole network."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from revacnn_lightning.protocol.messages import Structure

from .arcs import Arcs, arcs_height, route_arcs
from .boxes import Area, Box
from .column_placement import place_units
from .columns import Column
from .connections import Connections, connect
from .density import DENSER, MIN_ROOM, density_of, margins
from .end_space import NO_SPACE, EndSpace, end_space, with_names
from .folding import Unit, fold
from .header_width import are_apart, header_span
from .open_blocks import OpenBlock, block_of_stage, find_open_blocks, open_block_boxes
from .paths import Paths, route_paths
from .stages import Stage, find_stages, layers_of
from .titles import StageBox, column_labels, stage_boxes
from .topology import assign_ranks, forward_edges

__all__ = ["FRAME_TITLE", "NetworkLayout", "compute_layout", "stage_layers"]

OPEN_BUTTON = 12.0  # px beside the label of a closed block
ROOMY_MARGIN, MARGIN, END_MARGIN = 58.0, 24.0, 10.0  # px beside the columns
LEFT_OF_INPUT = 30.0  # px left of the columns, where the input is between them
FRAME_TITLE = 17.0  # px for the title of a frame inside another one


@dataclass(frozen=True)
class NetworkLayout:
    """Positions of everything in the network view, in pixels; y points down.

    Attributes:
        width, height: of the view.
        units: what is drawn, from the input to the output: layers and closed blocks.
        boxes: one per unit.
        columns: one per layer, those in closed blocks included.
        labels: one per unit.
        stages: frames around stages and open blocks.
        connections: between the units.
        paths: between the units.
        arcs: lines of edges that skip ranks, below the columns.
        density: ``roomy``, ``normal`` or ``crowded``: how much is written above a column.
        top, bottom: space above and below the columns.
        frame_levels: how deep the frames of open blocks are nested inside the stages.
        ranks: position of each unit from left to right.
        space: beside the columns, for the input and the outputs.
        input_rank: of the layers that read the input.
        input_x: where its space begins.
    """

    width: float
    height: float
    units: list[Unit]
    boxes: list[Box]
    columns: list[Column]
    labels: list[str]
    stages: list[StageBox]
    connections: Connections
    paths: Paths
    arcs: Arcs
    density: str
    top: float
    bottom: float
    frame_levels: int = 0
    ranks: list[int] = field(default_factory=list)
    space: EndSpace = NO_SPACE
    input_rank: int = 0
    input_x: float = 0.0

    @cached_property
    def node_offsets(self) -> np.ndarray:
        """Index of each layer's first node, int (layers + 1,)."""
        return np.cumsum([0] + [column.n for column in self.columns])

    @cached_property
    def unit_of_layer(self) -> list[int]:
        """Index of the unit in which each layer is drawn."""
        return [i for i, unit in enumerate(self.units) for _ in unit.layers]

    def first_filters(self, offsets: np.ndarray) -> np.ndarray:
        """Return the index of each node's first filter in flat arrays, int (nodes,).

        Args:
            offsets: index of each layer's first filter, (layers + 1,).
        """
        parts = [offsets[c.layer] + c.first[:-1] for c in self.columns]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def compute_layout(
    structure: Structure,
    width: float,
    height: float,
    expanded_layers: Collection[str] = (),
    closed_blocks: Collection[str] = (),
    *,
    has_ends: bool = False,
    input_readers: Collection[int] = (),
    name_width: float = 0.0,
) -> NetworkLayout:
    """Return the layout of a network in a view of this size.

    Args:
        expanded_layers: names of the layers whose filters are all shown.
        closed_blocks: paths of the blocks that are drawn as one.
        has_ends: leave space for the input and the outputs.
        input_readers: indices of the layers that read the input, if all of them read others, too.
            The space for it is then before them, as in a GAN, whose discriminator reads images of
            the batch and those that are generated.
        name_width: of the longest name of a class, px. There is room for it unless the layers would
            lose what is written above them.
    """
    given = (structure, width, height, expanded_layers, closed_blocks, input_readers)
    layout = _fitted(*given, has_ends=has_ends)
    if not has_ends or with_names(layout.space, name_width) == layout.space:
        return layout
    with_room = _fitted(*given, has_ends=True, name_width=name_width)
    return with_room if with_room.density == layout.density else layout


def _fitted(
    structure: Structure,
    width: float,
    height: float,
    expanded_layers: Collection[str],
    closed_blocks: Collection[str],
    input_readers: Collection[int],
    *,
    has_ends: bool,
    name_width: float = 0.0,
) -> NetworkLayout:
    """Return the layout of the largest density at which no headers overlap."""
    make = functools.partial(
        _layout,
        *(structure, width, height, expanded_layers, closed_blocks, input_readers),
        has_ends=has_ends,
        name_width=name_width,
    )
    layout = make()
    if layout.density == "roomy" and not _headers_fit(structure, layout):
        layout = make(density=DENSER["roomy"])
    # An expanded layer leaves less room between all others.
    while expanded_layers and _header_room(layout) < MIN_ROOM[layout.density]:
        layout = make(density=DENSER[layout.density])
    return layout


def _headers_fit(structure: Structure, layout: NetworkLayout) -> bool:
    """Return whether no header of a roomy layout touches another one.

    Headers of parallel branches are not compared: each is above its own column.
    """
    spans = [
        header_span(structure, unit, label, (box.left + box.right) / 2)
        for unit, label, box, rank in zip(
            layout.units, layout.labels, layout.boxes, layout.ranks, strict=True
        )
        if layout.ranks.count(rank) == 1
    ]
    return are_apart(spans)


def _header_room(layout: NetworkLayout) -> float:
    """Return the smallest distance between the middles of units one behind the other, px."""
    middles = [
        (rank, (box.left + box.right) / 2)
        for rank, box in zip(layout.ranks, layout.boxes, strict=True)
    ]
    by_rank: dict[int, list[float]] = {}
    for rank, middle in middles:
        by_rank.setdefault(rank, []).append(middle)
    return min(
        (min(by_rank[rank + 1]) - max(by_rank[rank]) for rank in by_rank if rank + 1 in by_rank),
        default=math.inf,
    )


def _layout(
    structure: Structure,
    width: float,
    height: float,
    expanded_layers: Collection[str],
    closed_blocks: Collection[str],
    input_readers: Collection[int],
    *,
    has_ends: bool,
    name_width: float = 0.0,
    density: str = "",
) -> NetworkLayout:
    """Return the layout with this density; "" for the one that suits the number of ranks."""
    layer_names = [layer.name for layer in structure.layers]
    units = fold(layer_names, closed_blocks)
    names = [unit.name for unit in units]
    connections = connect(structure, units)
    ranks = connections.ranks
    n_ranks = max(ranks, default=-1) + 1
    space = with_names(end_space(width, n_ranks), name_width) if has_ends else NO_SPACE
    input_rank = _rank_of_readers(units, ranks, input_readers) if has_ends else 0
    left = LEFT_OF_INPUT if input_rank else 0.0
    # width of the columns together
    inner = max(60.0, width - space.left - space.right - left)
    density = density or density_of(n_ranks, inner, 2 * MARGIN if has_ends else 0.0)
    stages = find_stages(names, ranks) if names else []
    open_blocks = find_open_blocks(layer_names, units, closed_blocks, stages)
    frame_levels = max((block.level for block in open_blocks), default=0)
    top, bottom = margins(density, bool(stages))
    top += FRAME_TITLE * frame_levels
    bottom += arcs_height(connections)
    margin = ROOMY_MARGIN if density == "roomy" else END_MARGIN if has_ends else MARGIN
    area = Area(inner, height - bottom, top, margin, left or space.left, input_rank, space.left)
    placement = place_units(
        structure, units, ranks, connections.vias, area, density, expanded_layers
    )
    frames = _stage_frames(stages, open_blocks, ranks, placement.boxes, density, units)
    frames += open_block_boxes(open_blocks, placement.boxes, ranks, units)
    label_room = inner / max(1, n_ranks) - any(unit.is_block for unit in units) * OPEN_BUTTON
    return NetworkLayout(
        width=width,
        height=height,
        units=units,
        boxes=placement.boxes,
        columns=placement.columns,
        labels=column_labels(names, stages, density, label_room),
        stages=frames,
        connections=connections,
        paths=route_paths(units, placement, connections),
        arcs=route_arcs(units, placement, connections),
        density=density,
        top=top,
        bottom=bottom,
        frame_levels=frame_levels,
        ranks=ranks,
        space=space,
        input_rank=input_rank,
        input_x=placement.split_x,
    )


def _rank_of_readers(units: Sequence[Unit], ranks: Sequence[int], readers: Collection[int]) -> int:
    """Return the lowest rank of the units with these layers; 0 if there are none."""
    found = [
        rank
        for unit, rank in zip(units, ranks, strict=True)
        if any(layer in readers for layer in unit.layers)
    ]
    return min(found, default=0)


def stage_layers(structure: Structure, layer: str) -> list[str]:
    """Return the layers in the stage of ``layer``; they are expanded and collapsed together."""
    names = [one.name for one in structure.layers]
    ranks = assign_ranks(len(names), forward_edges(structure))
    return layers_of(layer, find_stages(names, ranks), names)


def _stage_frames(
    stages: list[Stage],
    open_blocks: Sequence[OpenBlock],
    ranks: list[int],
    boxes: list[Box],
    density: str,
    units: Sequence[Unit],
) -> list[StageBox]:
    """Return the frames of the stages, except where their title would say a name twice.

    A closed block has a title of its own. So has a layer that is a stage by itself, unless the
    names of layers are shown on hover only.
    """
    frames = stage_boxes(stages, ranks, boxes, density)
    return [
        replace(
            frame,
            layer=units[stage.layer].first,
            block=block_of_stage(stage, open_blocks),
        )
        for frame, stage in zip(frames, stages, strict=True)
        if not _has_own_title(units[stage.layer], stage, density)
    ]


def _has_own_title(unit: Unit, stage: Stage, density: str) -> bool:
    """Return whether a stage is one unit, above which its name is written."""
    if unit.is_block:
        return stage.first == stage.last
    return density != "crowded" and unit.name == stage.path
