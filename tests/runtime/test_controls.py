"""Holding, saving and ending a run, and its hyper-parameters."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from revacnn_lightning import ReVACNN, attach
from revacnn_lightning.errors import ConnectionFileError, EditRefusedError
from revacnn_lightning.protocol.client import Run
from revacnn_lightning.protocol.requests import AddFilters, ControlRun, SetHyperparameter
from revacnn_lightning.runtime.controls import groups_of, set_hyperparameter
from tests.small import TwoConvs, fit


def sgd(**options: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(nn.Linear(2, 2).parameters(), **{"lr": 0.1, **options})


def set_rate(value: float) -> SetHyperparameter:
    return SetHyperparameter(0, 0, "lr", value)


def test_the_groups_are_told_as_they_are():
    [group] = groups_of([sgd(weight_decay=0.01)])
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
def test_a_schedule_goes_on_in_proportion(schedule):
    def rates(change_at: int | None) -> list[float]:
        optimizer = sgd()
        scheduler = schedule(optimizer)
        seen = []
        for step in range(12):
            if step == change_at:
                now = optimizer.param_groups[0]["lr"]
                set_hyperparameter(set_rate(now / 2), [optimizer], [scheduler])
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return seen

    plain, halved = rates(None), rates(5)
    assert halved[:5] == plain[:5]
    assert halved[5:] == pytest.approx([rate / 2 for rate in plain[5:]], rel=1e-9)


def test_a_rate_that_is_a_tensor_stays_the_same_tensor():
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


# ---------------------------------------------------------------------- in a real training


def when_it_runs(what: Callable[[Run], dict]) -> dict:
    """Attach to the run that is about to start, once it is there, and do ``what`` with it."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            run = attach(timeout=10)
        except ConnectionFileError:
            time.sleep(0.05)
            continue
        with run:
            try:
                return what(run)
            finally:
                run.request(ControlRun("stop"))  # also after a failure, or the training never ends
                time.sleep(0.2)
    raise AssertionError("the training did not start in time")


def until_some(find: Callable[[], list], count: int, seconds: float = 60) -> list:
    """Collect what ``find`` finds until there are ``count``."""
    found: list = []
    deadline = time.monotonic() + seconds
    while len(found) < count:
        assert time.monotonic() < deadline, f"only {found} within {seconds} s"
        found += find()
        time.sleep(0.01)
    return found


def train_with(
    what: Callable[[Run], dict], tmp_path: Path, **options: object
) -> tuple[dict, pl.Trainer]:
    """Train until ``what(run)``, in another thread, has stopped the run; returns its result."""
    with ThreadPoolExecutor(1) as other:
        person = other.submit(when_it_runs, what)
        every = {"count": 4, "max_epochs": 10_000, "default_root_dir": tmp_path, **options}
        trainer = fit(TwoConvs(), [ReVACNN()], **every)
        return person.result(), trainer


def step_after(run: Run, seconds: float) -> int:
    """The last batch that has been trained, so many seconds from now."""
    time.sleep(seconds)
    run.poll()
    assert run.snapshot is not None
    return run.snapshot.step


def test_pause_step_edit_while_paused_resume_and_stop_with_a_checkpoint(tmp_path: Path):
    def person(run: Run) -> dict:
        seen: dict = {"paused": run.command(ControlRun("pause"))}
        seen["at"] = step_after(run, 0.2)
        seen["later"] = step_after(run, 0.5)
        seen["edited at"] = run.apply(AddFilters("conv1", 2)).step
        run.command(ControlRun("step"))
        seen["stepped"] = step_after(run, 0.5)
        run.command(ControlRun("resume"))
        until_some(run.poll, 20)
        seen["stopped"] = run.command(ControlRun("stop"))
        return seen

    seen, trainer = train_with(person, tmp_path)
    assert seen["paused"] == "Paused"
    assert seen["later"] == seen["at"]
    assert seen["edited at"] == seen["stepped"] == seen["at"] + 1
    assert trainer.lightning_module.conv1.out_channels == 6
    path = Path(seen["stopped"].removeprefix("Stopping; saved "))
    assert path.is_file()
    saved = torch.load(path, weights_only=True)
    assert saved["state_dict"]["conv1.weight"].shape[0] == 6


def test_the_learning_rate_is_set_in_the_running_optimizer(tmp_path: Path):
    def person(run: Run) -> dict:
        done = run.command(SetHyperparameter(0, 0, "lr", 0.25))
        run.command(ControlRun("stop"))
        return {"done": done}

    seen, trainer = train_with(person, tmp_path)
    assert seen["done"] == "lr 0.001 → 0.25"
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.25
