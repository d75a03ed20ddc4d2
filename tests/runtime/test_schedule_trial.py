"""A schedule of the user's own is scaled after a trial on copies, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim import lr_scheduler as lrs

from revacnn_lightning import EditRefusedError
from tests.runtime.test_schedulers import (
    CHANGE_AT,
    STEPS,
    Schedule,
    factors,
    optimizer_of,
    rates_of,
    set_rate,
)


class Warmup(lrs.LRScheduler):
    """A scheduler of a user, with rates in attributes of its own."""

    def __init__(self, optimizer: Optimizer, floor: float = 1e-3) -> None:
        self.warmup_lr, self.final_lr, self.lr_power = 1e-3, floor, 2
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        done = min(1.0, self.last_epoch / 5)
        decay = 0.9 ** (self.last_epoch * self.lr_power)
        return [
            max(self.final_lr, (self.warmup_lr + (base - self.warmup_lr) * done) * decay)
            for base in self.base_lrs
        ]


class Absolute(lrs.LRScheduler):
    """A scheduler of a user that ignores every rate that is set."""

    def get_lr(self) -> list[float]:
        return [1 / (10 + self.last_epoch)] * len(self.optimizer.param_groups)


class After(lrs.LRScheduler):
    """A scheduler of a user that hands over to another one."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.after = lrs.CosineAnnealingLR(optimizer, 20, eta_min=1e-3)
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        if self.last_epoch < 10:
            return [base * (self.last_epoch + 1) / 10 for base in self.base_lrs]
        self.after.step()
        return [group["lr"] for group in self.optimizer.param_groups]


@pytest.mark.parametrize("schedule", [Warmup, After], ids=["own rates", "another one inside"])
def test_a_schedule_of_the_user_is_scaled(schedule: Schedule) -> None:
    plain, changed = rates_of(schedule), rates_of(schedule, change=set_rate(0.5))
    assert factors(changed, plain)[1] == pytest.approx([0.5] * (STEPS - CHANGE_AT), rel=1e-9)


def test_a_schedule_that_ignores_rates_is_refused_by_name() -> None:
    def change(optimizer: Optimizer, scheduler: Any) -> None:
        with pytest.raises(EditRefusedError, match=r"Absolute .* not follow a new rate"):
            set_rate(0.5)(optimizer, scheduler)

    assert rates_of(Absolute, change=change) == rates_of(Absolute)


def test_a_schedule_that_shares_a_model_is_refused_and_not_copied() -> None:
    class OfModel(Warmup):
        def __init__(self, optimizer: Optimizer) -> None:
            self.model = nn.Linear(2, 2)
            super().__init__(optimizer)

    with pytest.raises(EditRefusedError, match=r"OfModel .* refers to a Linear"):
        rates_of(OfModel, change=set_rate(0.5))


def test_a_schedule_that_needs_arguments_is_refused_by_name() -> None:
    class OfEpoch(Warmup):
        def step(self, epoch: int) -> None:  # type: ignore[override]
            super().step()

        def _initial_step(self) -> None:
            self._step_count = 0
            self.step(0)

    optimizer = optimizer_of()
    scheduler = OfEpoch(optimizer)
    with pytest.raises(EditRefusedError, match=r"OfEpoch .* cannot be tried out"):
        set_rate(0.5)(optimizer, scheduler)


def test_the_trial_of_a_schedule_leaves_it_and_the_random_state_alone() -> None:
    class Random(Warmup):
        def get_lr(self) -> list[float]:
            return [rate * float(torch.rand(())) for rate in super().get_lr()]

    optimizer = optimizer_of()
    scheduler = Random(optimizer)
    optimizer.param_groups[0]["lr"] = 0.05
    torch.manual_seed(3)
    before = torch.get_rng_state()
    set_rate(1.0)(optimizer, scheduler)
    assert torch.equal(torch.get_rng_state(), before)
    assert scheduler.last_epoch == 0
