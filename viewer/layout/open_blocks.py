"""Frames around the open blocks of a network in which other blocks are closed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .boxes import Box
from .folding import LayoutUnit, find_blocks
from .stages import NetworkStage
from .titles import StageBox

__all__ = ["OpenBlock", "block_path_of_stage", "find_open_blocks", "open_block_boxes"]

PADDING = 5.0  # px between the outer columns of a block and its frame
INSET = 2.5  # px by which a frame lies inside the next outer one


@dataclass(frozen=True)
class OpenBlock:
    """A block that is not folded: its layers are drawn one by one.

    Attributes:
        path: the path of the block.
        first, end: the range of its units.
        level: number of framed blocks around it; 0 if it has no frame of its own.
    """

    path: str
    first: int
    end: int
    level: int


def find_open_blocks(
    layer_names: Sequence[str],
    units: Sequence[LayoutUnit],
    closed_blocks: Collection[str],
    stages: Sequence[NetworkStage],
) -> list[OpenBlock]:
    """Return the open blocks, outer ones first.

    A block has a frame if a block beside it is closed: then the frame says what belongs together.

    Args:
        layer_names: the names of all layers.
    """
    unit_of = [i for i, unit in enumerate(units) for _ in unit.layers]
    opened: list[OpenBlock] = []
    for block in find_blocks(layer_names):
        first, end = unit_of[block.first], unit_of[block.end - 1] + 1
        if block.path in closed_blocks or end - first < 2:
            continue
        around = [one for one in opened if one.first <= first and end <= one.end]
        beside = units[around[-1].first : around[-1].end] if around else units
        is_stage = any(_is_of(stage, block.path, first) for stage in stages)
        is_framed = not is_stage and any(
            unit.is_block for unit in beside if not block.first <= unit.first < block.end
        )
        outer = max((one.level for one in around), default=0)
        opened.append(OpenBlock(block.path, first, end, outer + 1 if is_framed else 0))
    return opened


def block_path_of_stage(stage: NetworkStage, blocks: Sequence[OpenBlock]) -> str:
    """Return the path of the open block that a stage is; "" if it is none."""
    return next((b.path for b in blocks if _is_of(stage, b.path, b.first)), "")


def open_block_boxes(
    blocks: Sequence[OpenBlock],
    boxes: Sequence[Box],
    ranks: Sequence[int],
    units: Sequence[LayoutUnit],
) -> list[StageBox]:
    """Return the frames of the open blocks that have one."""
    deepest = max((block.level for block in blocks), default=0)
    frames = []
    for block in blocks:
        if not block.level:
            continue
        inside = range(block.first, block.end)
        first, last = min(ranks[i] for i in inside), max(ranks[i] for i in inside)
        covered = [box for box, rank in zip(boxes, ranks, strict=True) if first <= rank <= last]
        before = [box.right for box, rank in zip(boxes, ranks, strict=True) if rank == first - 1]
        after = [box.left for box, rank in zip(boxes, ranks, strict=True) if rank == last + 1]
        padding = PADDING + INSET * (deepest - block.level)
        left, right = min(box.left for box in covered), max(box.right for box in covered)
        if before:
            left -= min(padding, (left - max(before)) / 2 - 1)
        if after:
            right += min(padding, (min(after) - right) / 2 - 1)
        left, right = left - (0 if before else padding), right + (0 if after else padding)
        title = block.path.rsplit(".", 1)[-1]
        layer = units[block.first].first
        frames.append(StageBox(title, left, right, layer, block.path, block.path, block.level))
    return frames


def _is_of(stage: NetworkStage, path: str, first: int) -> bool:
    return stage.first_layer == first and path == stage.path
