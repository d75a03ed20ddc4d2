"""Reading and setting the hyperparameters of a running optimizer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from revacnn_lightning import EditRefusedError, SetHyperparameter
from revacnn_lightning.runtime.hyperparameters import (
    describe_parameter_groups,
    set_hyperparameter,
)


def sgd(**options: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(nn.Linear(2, 2).parameters(), **{"lr": 0.1, **options})


def set_rate(value: float) -> SetHyperparameter:
    return SetHyperparameter(0, 0, "lr", value)


def test_parameter_groups_are_described():
    [group] = describe_parameter_groups([sgd(weight_decay=0.01)])
    assert (group.optimizer_type, group.parameter_count) == ("SGD", 6)
    assert (group.learning_rate, group.weight_decay) == (0.1, 0.01)


@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 0.9**step),
        lambda o: torch.optim.lr_scheduler.StepLR(o, 3),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=20),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20),
        lambda o: torch.optim.lr_scheduler.LinearLR(o, total_iters=10),
    ],
    ids=["lambda", "step", "one-cycle", "cosine", "linear"],
)
def test_schedules_continue_in_proportion(schedule):
    def rates(change_at: int | None) -> list[float]:
        optimizer = sgd()
        scheduler = schedule(optimizer)
        used = []
        for step in range(12):
            if step == change_at:
                current = optimizer.param_groups[0]["lr"]
                set_hyperparameter(set_rate(current / 2), [optimizer], [scheduler])
            used.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return used

    plain, halved = rates(None), rates(5)
    assert halved[:5] == plain[:5]
    assert halved[5:] == pytest.approx([rate / 2 for rate in plain[5:]], rel=1e-9)


def test_a_learning_rate_tensor_is_set_in_place():
    optimizer = sgd()
    optimizer.param_groups[0]["lr"] = rate = torch.tensor(0.1)
    set_hyperparameter(set_rate(0.5), [optimizer], [])
    assert optimizer.param_groups[0]["lr"] is rate
    assert float(rate) == 0.5


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (SetHyperparameter(1, 0, "lr", 0.1), "no optimizer 1"),
        (SetHyperparameter(-1, 0, "lr", 0.1), "no optimizer -1"),
        (SetHyperparameter(0, 3, "lr", 0.1), "no parameter group 3"),
        (set_rate(-0.1), "at least 0"),
        (set_rate(math.nan), "finite"),
        (set_rate(math.inf), "finite"),
    ],
)
def test_bad_values_are_refused_and_change_nothing(request_: SetHyperparameter, reason: str):
    optimizer = sgd()
    with pytest.raises(EditRefusedError, match=reason):
        set_hyperparameter(request_, [optimizer], [])
    assert optimizer.param_groups[0]["lr"] == 0.1
