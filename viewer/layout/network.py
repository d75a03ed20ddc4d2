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
from .boxes import Box, ColumnArea
from .column_placement import place_units
from .columns import Column
from .connections import Connections, find_connections
from .density import DENSER, MIN_ROOM, choose_density, vertical_margins
from .folding import LayoutUnit, fold_blocks
from .header_width import are_apart, header_span
from .input_output_space import NO_SPACE, InputOutputSpace, input_output_space, widen_for_names
from .open_blocks import OpenBlock, block_path_of_stage, find_open_blocks, open_block_boxes
from .paths import Paths, route_paths
from .stages import NetworkStage, find_stages, layers_in_same_stage
from .titles import StageBox, column_labels, stage_boxes
from .topology import assign_ranks, forward_edges

__all__ = ["FRAME_TITLE", "NetworkLayout", "compute_layout", "layers_in_stage_of"]

OPEN_BUTTON = 12.0  # px beside the label of a closed block
ROOMY_MARGIN, MARGIN, END_MARGIN = 58.0, 24.0, 10.0  # px beside the columns
LEFT_OF_INPUT = 30.0  # px left of the columns, where the input is between them
FRAME_TITLE = 17.0  # px for the title of a frame inside another one


@dataclass(frozen=True)
class NetworkLayout:
    """Positions of everything in the network view, in pixels; y points down.

    Attributes:
        width, height: the size of the view.
        units: what is drawn, from the input to the output: layers and closed blocks.
        boxes: one per unit.
        columns: one per layer, those in closed blocks included.
        labels: one per unit.
        stages: frames around stages and open blocks.
        connections: the edges between the units.
        paths: the paths between the units.
        arcs: lines of edges that skip ranks, below the columns.
        density: ``roomy``, ``normal`` or ``crowded``: how much is written above a column.
        top, bottom: space above and below the columns.
        frame_levels: how deep the frames of open blocks are nested inside the stages.
        ranks: position of each unit from left to right.
        space: the space beside the columns for the input and the outputs.
        input_rank: the rank of the layers that read the input.
        input_x: where the space of the input begins.
    """

    width: float
    height: float
    units: list[LayoutUnit]
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
    space: InputOutputSpace = NO_SPACE
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
    has_input_output: bool = False,
    input_readers: Collection[int] = (),
    class_name_width: float = 0.0,
) -> NetworkLayout:
    """Return the layout of a network in a view of this size.

    Args:
        expanded_layers: the names of the layers whose filters are all shown.
        closed_blocks: the paths of the blocks that are drawn as one.
        has_input_output: leave space for the input and the outputs.
        input_readers: the indices of the layers that read the input, if each also reads another
            layer. The input is then placed before them, as in a GAN, whose discriminator reads
            images of the batch and those that are generated.
        class_name_width: the width of the longest name of a class, px. There is room for it unless
            the layers would lose what is written above them.
    """
    given = (structure, width, height, expanded_layers, closed_blocks, input_readers)
    layout = _fitted(*given, has_input_output=has_input_output)
    if not has_input_output or widen_for_names(layout.space, class_name_width) == layout.space:
        return layout
    with_room = _fitted(*given, has_input_output=True, class_name_width=class_name_width)
    return with_room if with_room.density == layout.density else layout


def _fitted(
    structure: Structure,
    width: float,
    height: float,
    expanded_layers: Collection[str],
    closed_blocks: Collection[str],
    input_readers: Collection[int],
    *,
    has_input_output: bool,
    class_name_width: float = 0.0,
) -> NetworkLayout:
    """Return the layout of the largest density at which no headers overlap."""
    make = functools.partial(
        _layout,
        *(structure, width, height, expanded_layers, closed_blocks, input_readers),
        has_input_output=has_input_output,
        class_name_width=class_name_width,
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
    has_input_output: bool,
    class_name_width: float = 0.0,
    density: str = "",
) -> NetworkLayout:
    """Return the layout with this density; "" for the one that suits the number of ranks."""
    layer_names = [layer.name for layer in structure.layers]
    units = fold_blocks(layer_names, closed_blocks)
    names = [unit.name for unit in units]
    connections = find_connections(structure, units)
    ranks = connections.ranks
    n_ranks = max(ranks, default=-1) + 1
    space = NO_SPACE
    if has_input_output:
        space = widen_for_names(input_output_space(width, n_ranks), class_name_width)
    input_rank = _rank_of_readers(units, ranks, input_readers) if has_input_output else 0
    left = LEFT_OF_INPUT if input_rank else 0.0
    inner = max(60.0, width - space.left - space.right - left)  # of all columns together
    density = density or choose_density(n_ranks, inner, 2 * MARGIN if has_input_output else 0.0)
    stages = find_stages(names, ranks) if names else []
    open_blocks = find_open_blocks(layer_names, units, closed_blocks, stages)
    frame_levels = max((block.level for block in open_blocks), default=0)
    top, bottom = vertical_margins(density, bool(stages))
    top += FRAME_TITLE * frame_levels
    bottom += arcs_height(connections)
    margin = ROOMY_MARGIN if density == "roomy" else END_MARGIN if has_input_output else MARGIN
    area = ColumnArea(
        inner, height - bottom, top, margin, left or space.left, input_rank, space.left
    )
    placement = place_units(
        structure, units, ranks, connections.path_lanes, area, density, expanded_layers
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


def _rank_of_readers(
    units: Sequence[LayoutUnit], ranks: Sequence[int], readers: Collection[int]
) -> int:
    """Return the lowest rank of the units with these layers; 0 if there are none."""
    found = [
        rank
        for unit, rank in zip(units, ranks, strict=True)
        if any(layer in readers for layer in unit.layers)
    ]
    return min(found, default=0)


def layers_in_stage_of(structure: Structure, layer_name: str) -> list[str]:
    """Return the layers in the stage of a layer; they are expanded and collapsed together."""
    names = [one.name for one in structure.layers]
    ranks = assign_ranks(len(names), forward_edges(structure))
    return layers_in_same_stage(layer_name, find_stages(names, ranks), names)


def _stage_frames(
    stages: list[NetworkStage],
    open_blocks: Sequence[OpenBlock],
    ranks: list[int],
    boxes: list[Box],
    density: str,
    units: Sequence[LayoutUnit],
) -> list[StageBox]:
    """Return the frames of the stages, except where their title would say a name twice.

    A closed block has a title of its own. So has a layer that is a stage by itself, unless the
    names of layers are shown on hover only.
    """
    frames = stage_boxes(stages, ranks, boxes, density)
    return [
        replace(
            frame,
            layer=units[stage.first_layer].first,
            block=block_path_of_stage(stage, open_blocks),
        )
        for frame, stage in zip(frames, stages, strict=True)
        if not _has_own_title(units[stage.first_layer], stage, density)
    ]


def _has_own_title(unit: LayoutUnit, stage: NetworkStage, density: str) -> bool:
    """Return whether a stage is one unit, above which its name is written."""
    if unit.is_block:
        return stage.first_rank == stage.last_rank
    return density != "crowded" and unit.name == stage.path
