from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revacnn_lightning.telemetry.recording.overhead_governor import MAX_EVERY, OverheadGovernor

PROTECTED = ("gradient", "activation")


def run(
    governor: OverheadGovernor, costs: dict[str, float], batches: int = 2000, step: float = 1.0
):
    """Train with these costs; the share of the step that we took in the last half."""
    spent = 0.0
    for batch in range(batches):
        gathered = {name: costs[name] for name in governor.due(costs)}
        governor.update(step + sum(gathered.values()), gathered)
        if batch >= batches // 2:
            spent += sum(gathered.values())
    return spent / (batches // 2) / step


def test_a_cheap_set_is_gathered_on_every_batch():
    governor = OverheadGovernor(0.03, PROTECTED)
    assert run(governor, {"gradient": 0.01, "update_ratio": 0.01}) == pytest.approx(0.02)
    assert governor.every == {}


def test_the_dear_one_is_thinned_out_until_it_fits():
    governor = OverheadGovernor(0.03, PROTECTED)
    share = run(governor, {"gradient": 0.01, "firing": 0.04, "weight_norm": 0.004})
    assert share <= 0.03
    assert governor.every["firing"] in (4, 8)
    assert governor.every.get("weight_norm", 1) == 1
    assert governor.overhead == pytest.approx(share, rel=0.1)


def test_the_two_that_drive_the_network_view_are_never_thinned_out():
    governor = OverheadGovernor(0.03, PROTECTED)
    run(governor, {"gradient": 0.5, "activation": 0.5, "firing": 0.1})
    assert governor.every == {"firing": MAX_EVERY}


def test_no_budget_gathers_everything():
    governor = OverheadGovernor(None, PROTECTED)
    run(governor, {"firing": 5.0})
    assert governor.every == {}


def test_it_comes_back_when_the_machine_is_faster_again():
    governor = OverheadGovernor(0.03, PROTECTED)
    run(governor, {"firing": 0.2})
    assert governor.every["firing"] >= 8
    run(governor, {"firing": 0.01})
    assert governor.every == {}


def test_due_is_true_to_every():
    governor = OverheadGovernor(0.03)
    governor.every = {"a": 4, "b": 2}
    gathered = [governor.due(["a", "b", "c"]) for _ in range(40)]
    for name, count in {"a": 10, "b": 20, "c": 40}.items():
        assert sum(name in due for due in gathered) == count


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.floats(0.0, 0.3), max_size=6),
    st.floats(0.01, 0.5),
)
def test_the_budget_is_kept_and_does_not_flutter(costs, budget):
    governor = OverheadGovernor(budget)
    share = run(governor, costs, 4000)
    assert share <= budget * 1.05 or set(governor.every.values()) == {MAX_EVERY}
    settled = dict(governor.every)
    run(governor, costs, 1000)
    assert governor.every == settled


@pytest.mark.parametrize("budget", [0, -1, 3])
def test_a_budget_that_is_no_share(budget):
    with pytest.raises(ValueError, match="max_overhead"):
        OverheadGovernor(budget)
