from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revacnn_lightning.telemetry.recording.overhead_governor import (
    MAX_SAMPLING_INTERVAL,
    OverheadGovernor,
)

PROTECTED = ("gradient", "activation")


def run(
    governor: OverheadGovernor, costs: dict[str, float], batches: int = 2000, step: float = 1.0
):
    """Train with these costs; return our share of a step in the second half."""
    spent = 0.0
    for batch in range(batches):
        sampled = {name: costs[name] for name in governor.select_due(costs)}
        governor.update(step + sum(sampled.values()), sampled)
        if batch >= batches // 2:
            spent += sum(sampled.values())
    return spent / (batches // 2) / step


def test_cheap_statistics_are_sampled_on_every_batch():
    governor = OverheadGovernor(0.03, PROTECTED)
    assert run(governor, {"gradient": 0.01, "update_ratio": 0.01}) == pytest.approx(0.02)
    assert governor.sampling_intervals == {}


def test_expensive_statistic_is_sampled_less_often():
    governor = OverheadGovernor(0.03, PROTECTED)
    share = run(governor, {"gradient": 0.01, "firing": 0.04, "weight_norm": 0.004})
    assert share <= 0.03
    assert governor.sampling_intervals["firing"] in (4, 8)
    assert governor.sampling_intervals.get("weight_norm", 1) == 1
    assert governor.overhead == pytest.approx(share, rel=0.1)


def test_protected_statistics_are_always_sampled():
    governor = OverheadGovernor(0.03, PROTECTED)
    run(governor, {"gradient": 0.5, "activation": 0.5, "firing": 0.1})
    assert governor.sampling_intervals == {"firing": MAX_SAMPLING_INTERVAL}


def test_without_budget_everything_is_sampled():
    governor = OverheadGovernor(None, PROTECTED)
    run(governor, {"firing": 5.0})
    assert governor.sampling_intervals == {}


def test_intervals_shrink_when_costs_drop():
    governor = OverheadGovernor(0.03, PROTECTED)
    run(governor, {"firing": 0.2})
    assert governor.sampling_intervals["firing"] >= 8
    run(governor, {"firing": 0.01})
    assert governor.sampling_intervals == {}


def test_the_cost_of_what_nobody_requests_any_more_does_not_count():
    governor = OverheadGovernor(0.03, PROTECTED)
    run(governor, {"gradient": 0.01, "firing": 0.01, "price": 2.0})
    assert governor.sampling_intervals["price"] == MAX_SAMPLING_INTERVAL
    run(governor, {"gradient": 0.01, "firing": 0.01}, batches=200)
    assert governor.overhead == pytest.approx(0.02, rel=0.01)
    assert governor.sampling_intervals == {"price": MAX_SAMPLING_INTERVAL}  # if it is again


def test_select_due_matches_the_intervals():
    governor = OverheadGovernor(0.03)
    governor.sampling_intervals = {"a": 4, "b": 2}
    sampled = [governor.select_due(["a", "b", "c"]) for _ in range(40)]
    for name, count in {"a": 10, "b": 20, "c": 40}.items():
        assert sum(name in due for due in sampled) == count


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.floats(0.0, 0.3), max_size=6),
    st.floats(0.01, 0.5),
)
def test_budget_is_kept_and_intervals_are_stable(costs, budget):
    governor = OverheadGovernor(budget)
    share = run(governor, costs, 4000)
    assert share <= budget * 1.05 or set(governor.sampling_intervals.values()) == {
        MAX_SAMPLING_INTERVAL
    }
    settled = dict(governor.sampling_intervals)
    run(governor, costs, 1000)
    assert governor.sampling_intervals == settled


@pytest.mark.parametrize("budget", [0, -1, 3])
def test_invalid_budget(budget):
    with pytest.raises(ValueError, match="max_overhead"):
        OverheadGovernor(budget)
