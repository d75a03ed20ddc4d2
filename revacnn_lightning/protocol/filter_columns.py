"""Which filter of one structure is which filter of the next."""

from __future__ import annotations

import numpy as np

from revacnn_lightning.protocol.messages import Structure

__all__ = ["find_previous_columns"]


def find_previous_columns(previous: Structure | None, current: Structure) -> np.ndarray:
    """Return the column that each filter of ``current`` has in ``previous``; -1 for new filters.

    A column is the index of a filter among those of all layers. The result is int64, (filters of
    ``current``,).
    """
    previous_columns: dict[str, dict[int, int]] = {}
    offset = 0
    for layer in previous.layers if previous is not None else ():
        previous_columns[layer.name] = {id_: offset + i for i, id_ in enumerate(layer.filter_ids)}
        offset += len(layer.filter_ids)
    source = [
        previous_columns.get(layer.name, {}).get(id_, -1)
        for layer in current.layers
        for id_ in layer.filter_ids
    ]
    return np.array(source, np.int64)
