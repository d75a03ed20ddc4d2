"""What one structure of a run has of the one before it."""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace

from revacnn_lightning.protocol.messages import Structure

__all__ = ["source_columns", "still_connected"]


def still_connected(known: Structure | None, structure: Structure) -> Structure:
    """``structure`` with the edges it had, where it has not been traced since an edit."""
    if known is None or structure.edges or not known.edges:
        return structure
    same = [a.name for a in known.layers] == [b.name for b in structure.layers]
    return replace(structure, edges=known.edges) if same else structure


def source_columns(known: Structure | None, structure: Structure) -> np.ndarray:
    """For each filter of ``structure``, where it was in ``known``; -1 for new ones."""
    old: dict[str, dict[int, int]] = {}
    offset = 0
    for layer in known.layers if known is not None else ():
        old[layer.name] = {id_: offset + i for i, id_ in enumerate(layer.filter_ids)}
        offset += len(layer.filter_ids)
    source = [
        old.get(layer.name, {}).get(id_, -1)
        for layer in structure.layers
        for id_ in layer.filter_ids
    ]
    return np.array(source, np.int64)
