"""Plans take a small share of the time, however many are requested."""

from __future__ import annotations

import time

import pytest

from revacnn_lightning.protocol import rate_limit
from revacnn_lightning.runtime.plan_budget import PlanBudget


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(rate_limit.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_plans_take_at_most_two_percent_of_the_time(clock: list[float]):
    budget, planned = PlanBudget(), 0.0
    for _ in range(100_000):  # a batch of 10 ms, and as many plans as are allowed
        while not budget.is_exhausted:
            with budget.spend():
                clock[0] += 0.005
                planned += 0.005
        clock[0] += 0.01
    assert planned <= 0.02 * (clock[0] - 100.0) + 1.1


def test_a_slow_plan_does_not_exhaust_the_budget_for_long(clock: list[float]):
    budget = PlanBudget()
    for _ in range(4):
        with budget.spend():
            clock[0] += 60.0
    assert not budget.is_exhausted
