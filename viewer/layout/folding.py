"""Blocks of a large network: the layers of one module, drawn as one while the block is closed."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

__all__ = [
    "MAX_OPEN_LAYERS",
    "Block",
    "LayoutUnit",
    "closed_block_of",
    "closed_blocks_after_reveal",
    "find_blocks",
    "fold_blocks",
    "initially_closed_blocks",
    "innermost_open_block_of",
]

MAX_OPEN_LAYERS = 40  # a network with more layers is folded at first
MAX_UNITS = 24  # of a folded network; with more, columns are too narrow for their headers
MAX_PARTS = 30  # a longer list of modules is divided into ranges


@dataclass(frozen=True)
class Block:
    """The layers of one module, adjacent in forward order.

    Attributes:
        path: module path, or the range of them: ``layer3.6–11``.
        first: index of the first layer.
        end: index of the layer after the last one.
    """

    path: str
    first: int
    end: int

    def __contains__(self, layer: int) -> bool:
        return self.first <= layer < self.end

    def encloses(self, other: Block) -> bool:
        """Return whether the other block is inside this one."""
        return self != other and self.first <= other.first and other.end <= self.end


@dataclass(frozen=True)
class LayoutUnit:
    """What is drawn at one place: a layer, or all layers of a closed block.

    Attributes:
        name: the name of the layer, or the path of the block.
        first, end: the range of layers that it consists of.
        is_block: whether it is a closed block.
    """

    name: str
    first: int
    end: int
    is_block: bool

    @property
    def layers(self) -> range:
        return range(self.first, self.end)


def find_blocks(layer_names: Sequence[str]) -> tuple[Block, ...]:
    """Return the blocks of a network from the outside in, each before the blocks inside it.

    A block has several layers, but not all. A module is no block if layers of other modules run
    between its own, because the connections of the block would form a loop. Of nested modules with
    the same layers, the outermost one is the block.

    Args:
        layer_names: the names of all layers, in forward order.
    """
    return _find_blocks(tuple(layer_names))


@lru_cache(maxsize=8)
def _find_blocks(names: tuple[str, ...]) -> tuple[Block, ...]:
    members: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        parts = name.split(".")
        for depth in range(1, len(parts)):
            members.setdefault(".".join(parts[:depth]), []).append(i)
    known = {(0, len(names))}
    blocks: list[Block] = []
    for path, layers in members.items():
        first, end = layers[0], layers[-1] + 1
        if len(layers) == end - first > 1 and (first, end) not in known:
            known.add((first, end))
            blocks.append(Block(path, first, end))
    if len(names) > MAX_OPEN_LAYERS:
        blocks += _ranges(blocks, names, known)
    return tuple(sorted(blocks, key=lambda block: (block.first, -block.end)))


def fold_blocks(layer_names: Sequence[str], closed_blocks: Collection[str]) -> list[LayoutUnit]:
    """Return the units to draw: the outermost closed blocks, and all layers outside of them.

    Args:
        layer_names: the names of all layers, in forward order.
        closed_blocks: the paths of the closed blocks. Unknown paths are ignored.
    """
    return _fold(
        layer_names, [block for block in find_blocks(layer_names) if block.path in closed_blocks]
    )


def initially_closed_blocks(layer_names: Sequence[str]) -> frozenset[str]:
    """Return the paths of the blocks that are closed at first.

    A network of up to `MAX_OPEN_LAYERS` layers is shown completely. A larger one is opened level
    by level, as long as no more than `MAX_UNITS` are drawn.
    """
    if len(layer_names) <= MAX_OPEN_LAYERS:
        return frozenset()
    blocks = find_blocks(layer_names)
    depths = [sum(outer.encloses(block) for outer in blocks) for block in blocks]
    closed = list(blocks)
    for depth in range(max(depths, default=-1) + 1):
        inner = [block for block, d in zip(blocks, depths, strict=True) if d > depth]
        if len(_fold(layer_names, inner)) > MAX_UNITS:
            break
        closed = inner
    return frozenset(block.path for block in closed)


def closed_block_of(
    layer_index: int, layer_names: Sequence[str], closed_blocks: Collection[str]
) -> Block | None:
    """Return the closed block in which a layer is drawn; None if the layer has its own column."""
    return next(
        (b for b in find_blocks(layer_names) if layer_index in b and b.path in closed_blocks), None
    )


def innermost_open_block_of(
    layer_index: int, layer_names: Sequence[str], closed_blocks: Collection[str]
) -> Block | None:
    """Return the innermost open block around a layer, or around the closed block that hides it.

    None if there is no such block.
    """
    around: Block | None = None
    for block in find_blocks(layer_names):
        if layer_index in block:
            if block.path in closed_blocks:
                break
            around = block
    return around


def closed_blocks_after_reveal(
    layer_index: int, layer_names: Sequence[str], closed_blocks: Collection[str]
) -> frozenset[str]:
    """Return the paths of the closed blocks without those around a layer, so that it is drawn."""
    around = {block.path for block in find_blocks(layer_names) if layer_index in block}
    return frozenset(closed_blocks) - around


def _fold(names: Sequence[str], closed: Iterable[Block]) -> list[LayoutUnit]:
    """Return what is drawn if these blocks, outer before inner, are closed."""
    starts: dict[int, Block] = {}
    for block in closed:
        starts.setdefault(block.first, block)
    units, layer = [], 0
    while layer < len(names):
        closed_one = starts.get(layer)
        if closed_one is None:
            units.append(LayoutUnit(names[layer], layer, layer + 1, is_block=False))
        else:
            units.append(LayoutUnit(closed_one.path, layer, closed_one.end, is_block=True))
        layer = units[-1].end
    return units


def _ranges(blocks: list[Block], names: Sequence[str], known: set[tuple[int, int]]) -> list[Block]:
    """Return blocks that divide long lists of modules into ranges of about equal length."""
    whole = Block("", 0, len(names))
    found = []
    for parent in [whole, *blocks]:
        parts = _parts_of(parent, blocks, names)
        if len(parts) <= MAX_PARTS:
            continue
        per_range = math.ceil(len(parts) / math.ceil(math.sqrt(len(parts))))
        for start in range(0, len(parts), per_range):
            some = parts[start : start + per_range]
            first, end = some[0].first, some[-1].end
            if end - first > 1 and (first, end) not in known:
                found.append(Block(_range_path(some[0].path, some[-1].path), first, end))
    return found


def _parts_of(parent: Block, blocks: Iterable[Block], names: Sequence[str]) -> list[Block]:
    """Return the outermost blocks inside a block, and its layers outside of them."""
    inside = sorted((b for b in blocks if parent.encloses(b)), key=lambda b: (b.first, -b.end))
    parts, layer = [], parent.first
    while layer < parent.end:
        part = next((b for b in inside if b.first == layer), Block(names[layer], layer, layer + 1))
        parts.append(part)
        layer = part.end
    return parts


def _range_path(first: str, last: str) -> str:
    """Return ``layer3.0–5`` for ``layer3.0`` and ``layer3.5``."""
    depth = 0
    for a, b in zip(first.split("."), last.split("."), strict=False):
        if a != b:
            break
        depth += 1
    return f"{first}–{'.'.join(last.split('.')[depth:])}"
