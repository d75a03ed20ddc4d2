from __future__ import annotations

import pytest

from revacnn_lightning.history.sample_schedule import COST_ALONE, MAX_OVERHEAD, SampleSchedule


def sampled_steps(batches: int, overhead: float) -> list[int]:
    schedule, steps = SampleSchedule(), []
    for step in range(batches):
        if schedule.is_due(step):
            schedule.advance(step, overhead)
            steps.append(step)
    return steps


@pytest.mark.parametrize("overhead", [0.0, 0.03, 0.2, 2.0])
def test_samples_cost_at_most_the_budget(overhead: float) -> None:
    steps = sampled_steps(400_000, overhead)
    cost = COST_ALONE * overhead
    assert len([step for step in steps if step >= 120_000]) * cost <= 280_000 * MAX_OVERHEAD
    assert len(steps) > 400_000 * MAX_OVERHEAD / max(cost, 0.03) / 2


def test_the_first_batches_are_sampled_most_often() -> None:
    steps = sampled_steps(20_000, 0.03)
    assert steps[:10] == list(range(10))
    assert len([step for step in steps if step < 300]) > 50


@pytest.mark.parametrize("period", [2, 3, 4, 7, 8, 16, 32, 33, 40, 48])
def test_every_batch_of_an_accumulation_window_gets_its_turn(period: int) -> None:
    steps = [step for step in sampled_steps(100_000, 0.03) if step > 1000]
    counts = [sum(step % period == rest for step in steps) for rest in range(period)]
    assert min(counts) > 0.4 * len(steps) / period
