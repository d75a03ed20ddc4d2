"""Which filter of a layer is the least active one."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from revacnn_lightning.protocol.messages import LayerInfo

from ..runs.run_state import RunState

__all__ = ["find_least_active_filter"]

RECENT_ROWS = 8  # rows of the history whose mean is compared


def find_least_active_filter(
    state: RunState, layer_index: int, layer: LayerInfo, excluded_ids: Collection[int]
) -> int | None:
    """Return the id of the least active filter of a layer; None if there is none.

    Args:
        excluded_ids: the ids of filters that are not returned, for example because their removal
            is staged.
    """
    start, n = state.n_filters + int(state.offsets[layer_index]), len(layer.filter_ids)
    recent = state.histories.filters.rows[-RECENT_ROWS:, start : start + n]
    values = state.layer_values("activation", layer_index)
    if len(recent):
        finite = np.isfinite(recent)
        values = np.where(finite, recent, 0).sum(axis=0) / np.maximum(1, finite.sum(axis=0))
    if len(values) != n:
        return None
    ids = [layer.filter_ids[int(index)] for index in np.argsort(values, kind="stable")]
    return next((id_ for id_ in ids if id_ not in excluded_ids), None)
