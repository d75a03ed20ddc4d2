from __future__ import annotations

import pytest

from revacnn_lightning.telemetry import DEFAULT_STATISTICS, STATISTICS
from revacnn_lightning.telemetry.recording.overhead_costs import cost_per_statistic

PARTS = {
    "gradient": 1.0,
    "maps": 4.0,
    "map gradients": 6.0,
    "signal_to_noise": 2.0,
    "top_images": 0.5,
}


def test_shared_pass_is_split_evenly():
    costs = cost_per_statistic(PARTS, frozenset(STATISTICS))
    assert costs == {
        "gradient": 1.0, "activation": 2.0, "firing": 2.0, "activation_gradient": 3.0,
        "signal_to_noise": 5.0, "top_images": 0.5,
    }  # fmt: skip


def test_pass_for_one_statistic_is_attributed_to_it():
    parts = {"gradient": 1.0, "maps": 4.0}
    assert cost_per_statistic(parts, frozenset(DEFAULT_STATISTICS)) == {
        "gradient": 1.0,
        "activation": 4.0,
    }


@pytest.mark.parametrize("sampled", [DEFAULT_STATISTICS, STATISTICS, ("gradient", "firing")])
def test_costs_sum_up_to_the_parts(sampled):
    parts = dict(PARTS) if "signal_to_noise" in sampled else {"gradient": 1.0, "maps": 4.0}
    assert sum(cost_per_statistic(parts, frozenset(sampled)).values()) == sum(parts.values())
