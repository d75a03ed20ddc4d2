"""Which layers stand side by side, and what connects them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

from revacnn_lightning.protocol.messages import Structure

__all__ = ["concats", "flows_and_arcs", "forward_edges", "nesting", "ranks"]

Edge = tuple[int, int]


def forward_edges(structure: Structure) -> list[Edge]:
    """The edges between layers; a plain chain where the training has told of none."""
    n = len(structure.layers)
    edges = {(a, b) for a, b in structure.edges if 0 <= a < b < n}
    if not edges:
        return [(i, i + 1) for i in range(n - 1)]
    return sorted(edges)


def ranks(n: int, edges: list[Edge]) -> list[int]:
    """The place of each layer from left to right: one more than the furthest that feeds it.

    So parallel branches get the same places, and nothing feeds a layer from its right. Places
    are without gaps; layers that nothing feeds stand first.
    """
    rank = [0] * n
    for a, b in sorted(edges):  # layers are in forward order, so a < b
        rank[b] = max(rank[b], rank[a] + 1)
    return rank


def concats(structure: Structure, edges: list[Edge]) -> set[int]:
    """The layers that read the outputs of several others one behind the other, not their sum."""
    sources: dict[int, list[int]] = defaultdict(list)
    for a, b in edges:
        sources[b].append(len(structure.layers[a].filter_ids))
    return {
        b
        for b, widths in sources.items()
        if len(widths) > 1 and sum(widths) == structure.layers[b].in_channels
    }


def flows_and_arcs(
    edges: list[Edge], rank: list[int], concat: Collection[int] = ()
) -> tuple[list[Edge], list[Edge]]:
    """Split the edges into those drawn as flows of paths and those drawn as arcs.

    A layer flows to the nearest layers it feeds. Edges that skip places are arcs; where several
    arcs end in one layer that reads their sum, the nearest stands for them all.
    """
    nearest: dict[int, int] = {}
    for a, b in edges:
        nearest[a] = min(nearest.get(a, rank[b]), rank[b])
    flows = [(a, b) for a, b in edges if rank[b] == nearest[a]]
    skipping: dict[int, list[int]] = defaultdict(list)
    for a, b in edges:
        if rank[b] > nearest[a]:
            skipping[b].append(a)
    arcs = []
    for b, sources in skipping.items():
        if b in concat:
            arcs += [(a, b) for a in sources]
        else:
            arcs.append((max(sources, key=lambda a: (rank[a], -a)), b))
    return flows, arcs


def nesting(arcs: Sequence[Edge], rank: Sequence[int]) -> list[int]:
    """Of each arc, 1, or one more than the most of those that begin and end within it."""
    spans = [(rank[a], rank[b]) for a, b in arcs]
    level = [1] * len(spans)
    for i in sorted(range(len(spans)), key=lambda i: spans[i][1] - spans[i][0]):
        within = (
            level[k]
            for k, (start, end) in enumerate(spans)
            if spans[i][0] <= start and end <= spans[i][1] and spans[k] != spans[i]
        )
        level[i] = 1 + max(within, default=0)
    return level
