"""Which filter of one structure is which filter of the next."""

from __future__ import annotations

import numpy as np

from revacnn_lightning.protocol.messages import Structure

__all__ = ["source_columns"]


def source_columns(known: Structure | None, structure: Structure) -> np.ndarray:
    """Return the index in ``known`` of each filter of ``structure``, -1 for new filters.

    Indices run over the filters of all layers; int64 (filters,).
    """
    known_columns: dict[str, dict[int, int]] = {}
    offset = 0
    for layer in known.layers if known is not None else ():
        known_columns[layer.name] = {id_: offset + i for i, id_ in enumerate(layer.filter_ids)}
        offset += len(layer.filter_ids)
    source = [
        known_columns.get(layer.name, {}).get(id_, -1)
        for layer in structure.layers
        for id_ in layer.filter_ids
    ]
    return np.array(source, np.int64)
