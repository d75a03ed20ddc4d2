"""Which filter of a layer is the least active one."""

from __future__ import annotations

import numpy as np

from tests.viewer.conftest import InProcessFollower
from viewer.tab.least_active import find_least_active_filter


def test_the_least_active_filter_that_is_not_excluded(follower: InProcessFollower) -> None:
    state = follower.state
    assert state is not None
    assert state.structure is not None
    layer = state.structure.layers[1]
    start = state.n_filters + int(state.offsets[1])
    rows = state.histories.filters.rows[:, start : start + len(layer.filter_ids)]
    first, second = (layer.filter_ids[i] for i in np.argsort(rows.mean(axis=0), kind="stable")[:2])
    assert find_least_active_filter(state, 1, layer, []) == first
    assert find_least_active_filter(state, 1, layer, [first]) == second
    assert find_least_active_filter(state, 1, layer, layer.filter_ids) is None
