"""Plans take a small share of the time, however many are requested."""

from __future__ import annotations

from revacnn_lightning.runtime.plan_budget import PlanTimeBudget
from tests.manual_clock import ManualClock


def test_plans_take_a_small_share_of_the_time():
    clock, planned = ManualClock(), 0.0
    budget = PlanTimeBudget(clock)
    for _ in range(100_000):  # a batch of 10 ms, and as many plans as are allowed
        while not budget.is_exhausted:
            with budget.count_time_inside():
                clock.now += 0.005
                planned += 0.005
        clock.now += 0.01
    assert planned <= 0.01 * (clock.now - 100.0) + 1.1


def test_a_slow_plan_does_not_exhaust_the_budget_for_long():
    clock = ManualClock()
    budget = PlanTimeBudget(clock)
    for _ in range(4):
        with budget.count_time_inside():
            clock.now += 60.0
    assert not budget.is_exhausted
