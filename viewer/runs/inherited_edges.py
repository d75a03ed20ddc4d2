"""The edges between layers after an edit, until the network is traced again."""

from __future__ import annotations

from msgspec.structs import replace

from revacnn_lightning.protocol.messages import Structure

__all__ = ["inherit_edges"]


def inherit_edges(known: Structure | None, structure: Structure) -> Structure:
    """Return ``structure``, with the edges of ``known`` if its own have not been traced yet."""
    if known is None or structure.edges or not known.edges:
        return structure
    same_layers = [a.name for a in known.layers] == [b.name for b in structure.layers]
    return replace(structure, edges=known.edges) if same_layers else structure
