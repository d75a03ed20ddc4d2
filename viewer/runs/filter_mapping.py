"""How the edges of one structure carry over to the next."""

from __future__ import annotations

from msgspec.structs import replace

from revacnn_lightning.protocol.messages import Structure

__all__ = ["inherit_edges"]


def inherit_edges(known: Structure | None, structure: Structure) -> Structure:
    """Return ``structure`` with the known edges if it has not been traced since an edit."""
    if known is None or structure.edges or not known.edges:
        return structure
    same_layers = [a.name for a in known.layers] == [b.name for b in structure.layers]
    return replace(structure, edges=known.edges) if same_layers else structure
