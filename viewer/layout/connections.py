"""How the units of a network are connected: edges, ranks, and what is a path or an arc."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from revacnn_lightning.protocol.messages import Structure

from .boxes import PathLane
from .folding import LayoutUnit
from .topology import (
    Edge,
    assign_ranks,
    concatenating_layers,
    forward_edges,
    separate_paths_and_arcs,
)

__all__ = ["Connections", "find_connections"]


@dataclass(frozen=True)
class Connections:
    """Connections between the units (layers and closed blocks) of the network view.

    Attributes:
        sources: for each edge between units, the layers that it comes from.
        channels: for each edge, how many channels pass.
        concatenating: units that read a concatenation.
        ranks: the rank of each unit.
        path_edges: edges to the nearest readers.
        arcs: edges that skip ranks.
    """

    sources: dict[Edge, list[int]]
    channels: dict[Edge, int]
    concatenating: frozenset[int]
    ranks: list[int]
    path_edges: list[Edge]
    arcs: list[Edge]

    @property
    def path_lanes(self) -> list[PathLane]:
        """The lanes that paths need beside the units that they pass."""
        ranks = self.ranks
        return sorted(
            {
                PathLane(a, rank)
                for a, b in self.path_edges
                for rank in range(ranks[a] + 1, ranks[b])
            },
            key=lambda lane: (lane.rank, lane.source),
        )


def find_connections(structure: Structure, units: Sequence[LayoutUnit]) -> Connections:
    """Return the edges between the units of a network, and which of them are paths or arcs."""
    unit_of = [i for i, unit in enumerate(units) for _ in unit.layers]
    layer_edges = forward_edges(structure)
    concatenating_reader = concatenating_layers(structure, layer_edges)
    found: dict[Edge, set[int]] = defaultdict(set)
    concatenating = set()
    for a, b in layer_edges:
        edge = unit_of[a], unit_of[b]
        if edge[0] != edge[1]:
            found[edge].add(a)
            if b in concatenating_reader:
                concatenating.add(edge[1])
    sources = {edge: sorted(found[edge]) for edge in sorted(found)}
    channels = {}
    for edge, layers in sources.items():
        widths = [len(structure.layers[i].filter_ids) for i in layers]
        channels[edge] = sum(widths) if edge[1] in concatenating else max(widths)
    ranks = assign_ranks(len(units), list(sources))
    path_edges, arcs = separate_paths_and_arcs(list(sources), ranks, concatenating)
    return Connections(sources, channels, frozenset(concatenating), ranks, path_edges, arcs)
