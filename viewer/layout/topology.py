"""Ranks of layers from left to right, and which edges are drawn as paths or as arcs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from revacnn_lightning.protocol.messages import Structure

__all__ = [
    "Edge",
    "assign_ranks",
    "concatenating_layers",
    "forward_edges",
    "separate_paths_and_arcs",
]

Edge = tuple[int, int]  # indices of two layers


def forward_edges(structure: Structure) -> list[Edge]:
    """Return the edges from each layer to its readers, as pairs of indices in ascending order.

    If no edges are known, the layers form a chain.
    """
    n = len(structure.layers)
    edges = {(a, b) for a, b in structure.edges if 0 <= a < b < n}
    if not edges:
        return [(i, i + 1) for i in range(n - 1)]
    return sorted(edges)


def assign_ranks(n_layers: int, edges: list[Edge]) -> list[int]:
    """Return the rank of each layer: one more than the largest rank of the layers it reads.

    Parallel branches share ranks, all edges point to the right, and ranks have no gaps. Layers
    without inputs have rank 0.
    """
    ranks = [0] * n_layers
    for a, b in sorted(edges):  # layers are in forward order, so a < b
        ranks[b] = max(ranks[b], ranks[a] + 1)
    return ranks


def concatenating_layers(structure: Structure, edges: list[Edge]) -> set[int]:
    """Return the layers that read a concatenation of several outputs instead of their sum."""
    widths: dict[int, list[int]] = defaultdict(list)
    for a, b in edges:
        widths[b].append(len(structure.layers[a].filter_ids))
    return {
        layer
        for layer, inputs in widths.items()
        if len(inputs) > 1 and sum(inputs) == structure.layers[layer].in_channels
    }


def separate_paths_and_arcs(
    edges: list[Edge], ranks: list[int], concatenating: Collection[int] = ()
) -> tuple[list[Edge], list[Edge]]:
    """Return the edges drawn as paths, and those drawn as arcs.

    Paths lead to the nearest of the layers that read an output. Other edges are arcs. Of several
    arcs into a layer that reads their sum, only the shortest is kept.

    Args:
        concatenating: layers that read a concatenation.
    """
    nearest: dict[int, int] = {}
    for a, b in edges:
        nearest[a] = min(nearest.get(a, ranks[b]), ranks[b])
    path_edges = [(a, b) for a, b in edges if ranks[b] == nearest[a]]
    skipping: dict[int, list[int]] = defaultdict(list)
    for a, b in edges:
        if ranks[b] > nearest[a]:
            skipping[b].append(a)
    arcs = []
    for b, sources in skipping.items():
        if b in concatenating:
            arcs += [(a, b) for a in sources]
        else:
            arcs.append((max(sources, key=lambda a: (ranks[a], -a)), b))
    return path_edges, arcs
