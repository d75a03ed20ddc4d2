"""The cheapest filters of a network, by the estimates or by the measured changes."""

from __future__ import annotations

import numpy as np
import pytest

from revacnn_lightning.client.cheapest_filters import (
    find_cheapest_filters,
    loss_changes_or_estimates,
    price_percentile_ranks,
)
from revacnn_lightning.protocol.messages import LayerInfo, Structure
from revacnn_lightning.protocol.prices import FilterPrices

UNKNOWN = np.full(6, np.nan, np.float32)
OFFSETS = np.array([0, 3, 5, 6])


def layer(name: str, ids: list[int], **options: object) -> LayerInfo:
    return LayerInfo(name, "Conv2d", 1, len(ids), (3, 3), (1, 1), 1, ids, **options)


STRUCTURE = Structure(
    "run", 0, 0, "Net",
    [layer("a", [10, 11, 12]), layer("b", [20, 21]), layer("c", [30], edit_refusal="no")],
)  # fmt: skip


def prices(estimates: list[float], changes: np.ndarray = UNKNOWN) -> FilterPrices:
    array = np.array(estimates, np.float32)
    return FilterPrices("run", 0, 0, array, np.asarray(changes, np.float32), UNKNOWN)


def test_measured_changes_count_once_all_are_known():
    estimates = [3, 1, 2, 5, 4, np.nan]
    some, all_known = [0.1, np.nan, 0, 0, 0, np.nan], [0.1, 0.2, 0, -1, 0, np.nan]
    np.testing.assert_array_equal(loss_changes_or_estimates(prices(estimates, some)), estimates)
    np.testing.assert_array_equal(
        loss_changes_or_estimates(prices(estimates, all_known)), np.float32(all_known)
    )


def test_ranks_are_shares_of_cheaper_filters():
    ranks = price_percentile_ranks(prices([3, 1, 2, 5, 4, np.nan]))
    assert ranks[:5] == pytest.approx([0.5, 0, 0.25, 1, 0.75])
    assert np.isnan(ranks[5])


@pytest.mark.parametrize(
    ("estimates", "count", "staged", "expected"),
    [
        ([3, 1, 2, 5, 4, 0], 2, [], [("a", 11), ("a", 12)]),  # layer c refuses
        ([3, 1, 2, 5, 4, 0], 5, [], [("a", 11), ("a", 12), ("b", 21)]),  # each layer keeps one
        ([3, 1, 2, 1, 4, 0], 2, [], [("a", 11), ("a", 12)]),  # a 11 and b 20 are coupled
        ([0, 0, 2, 5, 0, 0], 3, [], [("a", 10), ("a", 11), ("b", 21)]),  # these are not
        ([3, 1, 2, 5, 4, 0], 1, ["a"], [("b", 21)]),
        ([np.nan] * 6, 1, [], []),
    ],
)
def test_the_cheapest_filters_of_all_layers(estimates, count, staged, expected):
    assert find_cheapest_filters(prices(estimates), STRUCTURE, OFFSETS, count, staged) == expected
