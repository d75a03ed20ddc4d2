"""The edges between layers after an edit, until the network is traced again."""

from __future__ import annotations

from msgspec.structs import replace

from revacnn_lightning.protocol.messages import Structure

__all__ = ["inherit_edges"]


def inherit_edges(earlier_structure: Structure | None, structure: Structure) -> Structure:
    """Return ``structure``, with the edges of the earlier one until its own have been traced."""
    if earlier_structure is None or structure.edges or not earlier_structure.edges:
        return structure
    same_layers = [a.name for a in earlier_structure.layers] == [b.name for b in structure.layers]
    return replace(structure, edges=earlier_structure.edges) if same_layers else structure
