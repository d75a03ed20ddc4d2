from __future__ import annotations

import numpy as np
import pytest

from viewer.components.label_placement import spread_labels


def test_close_labels_are_spread() -> None:
    positions = np.array([50.0, 52.0, 20.0, 51.0, 120.0])

    spread = spread_labels(positions, 11.0, 130.0)

    assert np.allclose(spread, [40.0, 62.0, 20.0, 51.0, 120.0])
    assert (np.argsort(spread) == np.argsort(positions)).all()


@pytest.mark.parametrize("n", [0, 1, 2, 8])
def test_labels_with_room_keep_their_positions(n: int) -> None:
    positions = np.random.default_rng(n).permutation(10 + 20.0 * np.arange(n))

    assert np.allclose(spread_labels(positions, 11.0, 200.0), positions)
    crowded = spread_labels(positions / 100, 11.0, 200.0)
    assert (np.diff(np.sort(crowded)) >= 11 - 1e-9).all()


def test_labels_stay_within_the_chart() -> None:
    spread = spread_labels(np.array([130.0, 129.0, 0.0]), 11.0, 130.0)

    assert np.allclose(spread, [124.5, 113.5, 5.5])
