from __future__ import annotations

import pytest

from revacnn_lightning.telemetry import DEFAULT, STATISTICS
from revacnn_lightning.telemetry.recording.overhead_costs import shared_out

PARTS = {"gradient": 1.0, "maps": 4.0, "map gradients": 6.0, "signal_to_noise": 2.0, "finds": 0.5}


def test_what_comes_out_of_one_pass_is_shared_evenly():
    costs = shared_out(PARTS, frozenset(STATISTICS))
    assert costs == {
        "gradient": 1.0, "activation": 2.0, "firing": 2.0, "activation_gradient": 3.0,
        "signal_to_noise": 5.0, "finds": 0.5,
    }  # fmt: skip


def test_a_pass_for_one_statistic_is_its_own():
    parts = {"gradient": 1.0, "maps": 4.0}
    assert shared_out(parts, frozenset(DEFAULT)) == {"gradient": 1.0, "activation": 4.0}


@pytest.mark.parametrize("gathered", [DEFAULT, STATISTICS, ("gradient", "firing")])
def test_nothing_is_lost_and_nothing_counts_twice(gathered):
    parts = dict(PARTS) if "signal_to_noise" in gathered else {"gradient": 1.0, "maps": 4.0}
    assert sum(shared_out(parts, frozenset(gathered)).values()) == sum(parts.values())
