"""A training that sets its own rate is reported, instead of losing the one that was set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, StepLR

from revacnn_lightning import ReVACNN, SetHyperparameter
from revacnn_lightning.runtime.override_detector import CHECKED_BATCHES, OverrideDetector
from tests.small import At, TwoConvs, fit


class World:
    """An optimizer whose rate and weight decay are set to 0.1 before batch 0."""

    def __init__(self) -> None:
        self.optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1, weight_decay=0.1)
        self.group = self.optimizer.param_groups[0]
        self.schedulers: list[Any] = []
        self.detector = OverrideDetector(lambda: [self.optimizer], lambda: self.schedulers)

    def expect(self) -> None:
        for name in ("lr", "weight_decay"):
            self.detector.expect(SetHyperparameter(0, 0, name, 0.1))  # type: ignore[arg-type]

    def check(self, step: int = 1, *, first_of_epoch: bool = False) -> bool:
        return self.detector.detect(step, first_of_epoch=first_of_epoch)


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(("name", "label"), [("lr", "learning rate"), ("weight_decay", "decay")])
def test_an_assigned_value_is_noted_once(world: World, name: str, label: str) -> None:
    world.expect()
    assert not world.check()
    world.group[name] = 0.3
    assert world.check(step=5)
    assert label in world.detector.notes[0, 0]
    assert "replaced 0.1 by 0.3 before batch 5" in world.detector.notes[0, 0]
    assert not world.check()
    world.expect()
    assert not world.detector.notes


def test_a_schedule_that_continues_is_no_override(world: World) -> None:
    world.schedulers = [LambdaLR(world.optimizer, lambda step: 0.9**step)]
    world.expect()
    for step in range(30):
        world.optimizer.step()
        world.schedulers[0].step()
        assert not world.check(step, first_of_epoch=step == 20)


def test_a_schedule_that_does_not_keep_its_rates_is_no_override(world: World) -> None:
    class Forgetful(LambdaLR):
        def step(self, epoch: int | None = None) -> None:
            self.optimizer.param_groups[0]["lr"] *= 0.9

    world.schedulers = [Forgetful(world.optimizer, lambda step: 1.0)]
    world.group["lr"] = 0.1
    world.expect()
    for step in range(3):
        world.schedulers[0].step()
        assert not world.check(step)


def test_an_assignment_after_the_schedule_is_an_override(world: World) -> None:
    world.schedulers = [StepLR(world.optimizer, 2)]
    world.expect()
    world.optimizer.step()
    world.schedulers[0].step()
    world.group["lr"] = 0.2
    assert world.check()


def test_another_schedule_that_starts_later_is_an_override(world: World) -> None:
    world.expect()
    for step in range(CHECKED_BATCHES + 5):
        assert not world.check(step)
    world.schedulers = [LambdaLR(world.optimizer, lambda step: 0.5)]
    assert not world.check()  # now, only the first batch of an epoch is checked
    assert world.check(first_of_epoch=True)


def test_an_optimizer_that_is_gone_is_no_longer_checked(world: World) -> None:
    world.expect()
    world.detector._get_optimizers = lambda: []
    assert not world.check()


class WarmUp(TwoConvs):
    """Sets its rate in `optimizer_step`, as Lightning's documentation shows."""

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = 1e-3 * min(1.0, (self.trainer.global_step + 1) / 500)


def test_the_status_says_that_the_training_sets_its_own_rate() -> None:
    revacnn, notes = ReVACNN(), {}

    def read(*_: object) -> None:
        status = revacnn._session._status.initial_messages()[-1]  # type: ignore[union-attr]
        notes.update(enumerate(group.note for group in status.parameter_groups))  # type: ignore[union-attr]

    submit = At(3, lambda *_: revacnn.steer(SetHyperparameter(0, 0, "lr", 0.5)))
    fit(WarmUp(), [submit, revacnn, At(6, read)])
    assert "sets its own learning rate: it replaced 0.5 by" in notes[0]


class Sequential(TwoConvs):
    """A warm-up and a decay in one schedule, per step."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.01)
        schedules = [
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=2),
            LambdaLR(optimizer, lambda step: 0.99**step),
        ]
        sequential = torch.optim.lr_scheduler.SequentialLR(optimizer, schedules, [2])
        return [optimizer], [{"scheduler": sequential, "interval": "step"}]


class Manual(Sequential):
    """Steps a scheduler by hand that it keeps as an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self) -> Any:
        [optimizer], [schedule] = super().configure_optimizers()
        self.schedule = schedule["scheduler"]
        return optimizer

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(nn.functional.cross_entropy(self(batch[0]), batch[1]))
        optimizer.step()
        self.schedule.step()


class Rates(pl.Callback):
    """The rate of every batch."""

    def __init__(self) -> None:
        self.used: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.used.append(trainer.optimizers[0].param_groups[0]["lr"])


def halve_rate(revacnn: ReVACNN, trainer: pl.Trainer) -> Any:
    rate = trainer.optimizers[0].param_groups[0]["lr"]
    return revacnn.steer(SetHyperparameter(0, 0, "lr", rate / 2))


@pytest.mark.parametrize("kind", [Sequential, Manual])
def test_a_rate_set_in_a_run_is_kept_in_proportion(kind: type[TwoConvs]) -> None:
    plain, changed, revacnn = Rates(), Rates(), ReVACNN()
    fit(kind(), [plain])

    requests: list[Any] = []
    halve = At(4, lambda trainer, _: requests.append(halve_rate(revacnn, trainer)))
    fit(kind(), [changed, halve, revacnn])
    assert "lr 0.0098" in requests[0].result().detail
    assert changed.used[:4] == plain.used[:4]
    assert changed.used[4:] == pytest.approx([rate / 2 for rate in plain.used[4:]], rel=1e-9)


def test_a_rate_survives_a_resume(tmp_path: Path) -> None:
    plain, revacnn = Rates(), ReVACNN()
    fit(Sequential(), [plain], max_epochs=2)
    trainer = fit(Sequential(), [At(4, lambda trainer, _: halve_rate(revacnn, trainer)), revacnn])
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed = Rates()
    fit(Sequential(), [resumed, ReVACNN()], max_epochs=2, resume=tmp_path / "half.ckpt")
    assert resumed.used == pytest.approx([rate / 2 for rate in plain.used[12:]], rel=1e-9)
