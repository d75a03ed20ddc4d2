"""A learning rate that is set under a schedule scales every later rate, or it is refused."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim import lr_scheduler as lrs
from torch.optim.swa_utils import SWALR

from revacnn_lightning import EditRefusedError, SetHyperparameter
from revacnn_lightning.runtime.hyperparameters import set_hyperparameter
from revacnn_lightning.runtime.schedulers import find_schedulers, schedulers_of

# torch warns when schedules are nested.
pytestmark = pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")

STEPS = 30
CHANGE_AT = 7

Schedule = Callable[[Optimizer], Any]


def chained(optimizer: Optimizer) -> Any:
    warmup = lrs.LinearLR(optimizer, 0.1, total_iters=5)
    return lrs.ChainedScheduler([warmup, lrs.ExponentialLR(optimizer, 0.9)])


def sequential(optimizer: Optimizer) -> Any:
    warmup = lrs.LinearLR(optimizer, 0.1, total_iters=5)
    decay = lrs.LambdaLR(optimizer, lambda step: 0.95**step)
    return lrs.SequentialLR(optimizer, [warmup, decay], [9])


def nested(optimizer: Optimizer) -> Any:
    first = lrs.SequentialLR(
        optimizer, [lrs.ConstantLR(optimizer, 0.5, 4), lrs.StepLR(optimizer, 3, 0.7)], [5]
    )
    last = lrs.CosineAnnealingLR(optimizer, 10, eta_min=1e-3)
    return lrs.SequentialLR(optimizer, [first, last], [14])


TORCH: dict[str, Schedule] = {
    "LambdaLR": lambda o: lrs.LambdaLR(o, lambda step: 0.9**step),
    "MultiplicativeLR": lambda o: lrs.MultiplicativeLR(o, lambda step: 0.95),
    "StepLR": lambda o: lrs.StepLR(o, 5),
    "MultiStepLR": lambda o: lrs.MultiStepLR(o, [4, 11, 20]),
    "ConstantLR": lambda o: lrs.ConstantLR(o, 0.3, 12),
    "LinearLR": lambda o: lrs.LinearLR(o, 0.1, total_iters=12),
    "ExponentialLR": lambda o: lrs.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: lrs.PolynomialLR(o, 40, 2.0),
    "CosineAnnealingLR": lambda o: lrs.CosineAnnealingLR(o, 12, eta_min=1e-2),
    "CosineAnnealingWarmRestarts": lambda o: lrs.CosineAnnealingWarmRestarts(o, 9, 2, 1e-2),
    "ChainedScheduler": chained,
    "SequentialLR": sequential,
    "SequentialLR, nested": nested,
    "CyclicLR": lambda o: lrs.CyclicLR(o, 1e-3, 0.1, 6, cycle_momentum=False),
    "CyclicLR, momentum": lambda o: lrs.CyclicLR(o, 1e-3, 0.1, 6, mode="exp_range", gamma=0.99),
    "OneCycleLR": lambda o: lrs.OneCycleLR(o, 0.1, total_steps=40),
    "OneCycleLR, three phases": lambda o: lrs.OneCycleLR(o, 0.1, total_steps=40, three_phase=True),
    "ReduceLROnPlateau": lambda o: lrs.ReduceLROnPlateau(o, factor=0.3, patience=1, min_lr=1e-3),
    "SWALR": lambda o: SWALR(o, 0.02, anneal_epochs=20),
}
# These have one `eta_min` for all groups.
REFUSED_FOR_ONE_OF_SEVERAL_GROUPS = {
    "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "SequentialLR, nested",
}  # fmt: skip


def optimizer_of(kind: str = "sgd", groups: int = 1, rate: Any = 0.05) -> Optimizer:
    parameters = [{"params": nn.Linear(2, 2).parameters()} for _ in range(groups)]
    if kind == "adam":
        return torch.optim.Adam(parameters, lr=rate, capturable=isinstance(rate, torch.Tensor))
    optimizer = torch.optim.SGD(parameters, lr=rate, momentum=0.9)
    for i, group in enumerate(optimizer.param_groups):
        group["lr"] = group["lr"] / (i + 1)
    return optimizer


def rates_of(
    schedule: Schedule,
    make: Callable[[], Optimizer] = optimizer_of,
    change: Callable[[Optimizer, Any], object] | None = None,
) -> list[list[float]]:
    """Return the rate of every group in every step; ``change`` is called once in between."""
    optimizer = make()
    scheduler = schedule(optimizer)
    used = []
    for step in range(STEPS):
        if step == CHANGE_AT and change is not None:
            change(optimizer, scheduler)
        used.append([float(group["lr"]) for group in optimizer.param_groups])
        optimizer.step()
        if isinstance(scheduler, lrs.ReduceLROnPlateau):
            scheduler.step(1.0)
        else:
            scheduler.step()
    return used


def set_rate(factor: float, group: int = 0) -> Callable[[Optimizer, Any], None]:
    def change(optimizer: Optimizer, scheduler: Any) -> None:
        value = float(optimizer.param_groups[group]["lr"]) * factor
        request = SetHyperparameter(0, group, "lr", value)
        set_hyperparameter(request, [optimizer], [scheduler])

    return change


def factors(
    changed: list[list[float]], plain: list[list[float]], group: int = 0
) -> tuple[list[float], list[float]]:
    """Return the quotient of the rates before and after the change."""
    quotients = [a[group] / b[group] for a, b in zip(changed, plain, strict=True)]
    return quotients[:CHANGE_AT], quotients[CHANGE_AT:]


@pytest.mark.parametrize("factor", [0.5, 3.0])
@pytest.mark.parametrize("name", TORCH)
def test_every_later_rate_is_scaled(name: str, factor: float) -> None:
    plain, changed = rates_of(TORCH[name]), rates_of(TORCH[name], change=set_rate(factor))
    before, after = factors(changed, plain)
    assert before == [1.0] * CHANGE_AT
    assert after == pytest.approx([factor] * (STEPS - CHANGE_AT), rel=1e-9)


@pytest.mark.parametrize("name", TORCH)
def test_a_rate_of_a_second_group_leaves_the_first_alone(name: str) -> None:
    def make() -> Optimizer:
        return optimizer_of(groups=2)

    plain = rates_of(TORCH[name], make)
    if name in REFUSED_FOR_ONE_OF_SEVERAL_GROUPS:
        with pytest.raises(EditRefusedError, match=r"Cosine.* has one eta_min for all 2"):
            rates_of(TORCH[name], make, set_rate(0.5, group=1))
        return
    changed = rates_of(TORCH[name], make, set_rate(0.5, group=1))
    assert factors(changed, plain, 1)[1] == pytest.approx([0.5] * (STEPS - CHANGE_AT), rel=1e-9)
    assert [rates[0] for rates in changed] == [rates[0] for rates in plain]


@pytest.mark.parametrize("name", TORCH)
def test_rates_that_are_tensors_are_scaled(name: str) -> None:
    def make() -> Optimizer:
        return optimizer_of("adam", rate=torch.tensor(0.05))

    try:
        plain = rates_of(TORCH[name], make)
    except (TypeError, RuntimeError):
        pytest.skip("this version of torch cannot schedule a tensor so")
    TORCH[name](optimizer := make())
    [group] = optimizer.param_groups
    if group.get("initial_lr") is group["lr"]:
        pytest.skip("this version of torch changes the initial rate with the rate")
    changed = rates_of(TORCH[name], make, set_rate(0.5))
    assert factors(changed, plain)[1] == pytest.approx([0.5] * (STEPS - CHANGE_AT), rel=1e-5)


@pytest.mark.parametrize("name", ["CyclicLR, momentum", "OneCycleLR"])
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_momentum_is_cycled_as_before(name: str, kind: str) -> None:
    def momenta(change: Callable[[Optimizer, Any], None] | None) -> list[float]:
        seen: list[float] = []

        def make() -> Optimizer:
            optimizer = optimizer_of(kind)

            def record(*_: object) -> None:
                group = optimizer.param_groups[0]
                seen.append(group["betas"][0] if "betas" in group else group["momentum"])

            optimizer.register_step_pre_hook(record)
            return optimizer

        rates_of(TORCH[name], make, change)
        return seen

    assert momenta(set_rate(0.5)) == momenta(None)
    assert len(set(momenta(None))) > 3


def test_a_subclass_that_only_has_another_name_counts_as_torchs() -> None:
    class Inverse(lrs.LambdaLR):
        def __init__(self, optimizer: Optimizer) -> None:
            self.calls = 0
            super().__init__(optimizer, self.at)

        def at(self, step: int) -> float:
            self.calls += 1
            return 1 / (1 + step)

    optimizer = optimizer_of()
    scheduler = Inverse(optimizer)
    calls = scheduler.calls
    set_rate(0.5)(optimizer, scheduler)
    assert scheduler.calls == calls  # it was not tried out


@pytest.mark.parametrize(("value", "reason"), [(0.0, "would be 0"), (0.1, "is 0")])
def test_a_rate_of_zero_under_a_schedule_is_refused(value: float, reason: str) -> None:
    optimizer = optimizer_of()
    scheduler = lrs.LambdaLR(optimizer, lambda step: float(value == 0.0))
    with pytest.raises(EditRefusedError, match=f"{reason}, and LambdaLR"):
        set_hyperparameter(SetHyperparameter(0, 0, "lr", value), [optimizer], [scheduler])


def test_without_a_schedule_a_rate_of_zero_is_set_and_changed_again() -> None:
    optimizer = optimizer_of()
    for value in (0.0, 0.1):
        set_hyperparameter(SetHyperparameter(0, 0, "lr", value), [optimizer], [])
        assert optimizer.param_groups[0]["lr"] == value


def test_the_schedule_of_another_optimizer_is_left_alone() -> None:
    first, second = optimizer_of(), optimizer_of()
    schedulers = [sequential(first), sequential(second)]
    set_hyperparameter(SetHyperparameter(0, 0, "lr", 1e-3), [first, second], schedulers)
    inside = schedulers_of(second, schedulers)
    assert len(inside) == 3
    assert [each.base_lrs for each in inside if hasattr(each, "base_lrs")] == [[0.05], [0.05]]


@pytest.mark.parametrize("name", TORCH)
def test_a_rate_survives_saving_and_loading(name: str) -> None:
    def reload(optimizer: Optimizer, scheduler: Any) -> None:
        set_rate(0.5)(optimizer, scheduler)
        file = io.BytesIO()
        torch.save([optimizer.state_dict(), scheduler.state_dict()], file)
        file.seek(0)
        optimizer_state, scheduler_state = torch.load(file, weights_only=False)
        for value in vars(scheduler).values():  # nothing of the old rates may remain
            if isinstance(value, list) and value and isinstance(value[0], float):
                value[:] = [math.nan] * len(value)
        optimizer.load_state_dict(optimizer_state)
        scheduler.load_state_dict(scheduler_state)

    plain, changed = rates_of(TORCH[name]), rates_of(TORCH[name], change=reload)
    assert factors(changed, plain)[1] == pytest.approx([0.5] * (STEPS - CHANGE_AT), rel=1e-9)


def test_schedulers_are_found_in_attributes_lists_and_dicts() -> None:
    optimizer = optimizer_of()
    model = nn.Linear(2, 2)
    first, second, third = (lrs.StepLR(optimizer, 3) for _ in range(3))
    model.schedule, model.more = first, {"a": [second], "b": (third,)}
    assert find_schedulers([model]) == [first, second, third]
