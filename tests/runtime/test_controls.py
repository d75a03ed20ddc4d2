"""Pausing, saving and ending a run from another process."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from revacnn_lightning import AddFilters, ControlRun, Run, RunEndedError, SetHyperparameter
from tests.runtime.live_run import collect_until, train_with

BATCHES = 4  # of an epoch of `train_with`


def last_step(run: Run, after: int = -1) -> int:
    """Return the last trained batch of a paused run, once one after ``after`` is trained.

    A training that went on would have the time for many more batches.
    """
    deadline = time.monotonic() + 240
    seen = after
    while time.monotonic() < deadline:
        time.sleep(0.3)
        run.poll()
        step = seen if run.snapshot is None else run.snapshot.step
        if step == seen != after:
            return step
        seen = step
    raise AssertionError(f"the training has not paused, or not trained since batch {after}")


def test_pause_step_edit_resume_and_stop_with_a_checkpoint(tmp_path: Path):
    def client(run: Run) -> dict:
        collect_until(run.poll, 5)  # how the network is used is known after a batch
        seen: dict = {"paused": run.command(ControlRun("pause"))}
        seen["at"] = last_step(run)
        time.sleep(0.3)
        seen["later"] = last_step(run)
        seen["edited at"] = run.apply(AddFilters("conv1", 2)).step
        run.command(ControlRun("step"))
        seen["stepped"] = last_step(run, after=seen["at"])
        run.command(ControlRun("resume"))
        collect_until(run.poll, 20)
        seen["stopped"] = run.command(ControlRun("stop"))
        return seen

    seen, trainer = train_with(client, tmp_path)
    assert seen["paused"] == "Paused"
    assert seen["later"] == seen["at"]
    assert seen["edited at"] == seen["stepped"] == seen["at"] + 1
    assert trainer.lightning_module.conv1.out_channels == 6
    path = Path(seen["stopped"].removeprefix("Stopping; saved "))
    assert path.is_file()
    saved = torch.load(path, weights_only=True)
    assert saved["state_dict"]["conv1.weight"].shape[0] == 6


def test_the_learning_rate_of_the_running_optimizer_is_set(tmp_path: Path):
    def client(run: Run) -> dict:
        result = run.command(SetHyperparameter(0, 0, "lr", 0.25))
        run.command(ControlRun("stop"))
        return {"result": result}

    seen, trainer = train_with(client, tmp_path)
    assert seen["result"] == "lr 0.001 → 0.25"
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.25


def test_a_run_trains_some_batches_or_to_the_end_of_the_epoch_and_pauses(tmp_path: Path):
    def client(run: Run) -> dict:
        run.command(ControlRun("pause"))
        start = run.train(1)
        seen: dict = {"batches": run.train(5) - start}
        seen["epochs"] = [run.train() % BATCHES for _ in range(2)]
        assert run.status is not None
        seen["state"] = run.status.state
        seen["later"] = last_step(run)
        run.command(ControlRun("stop"))
        return seen

    seen, _ = train_with(client, tmp_path)
    assert seen["batches"] == 5
    assert seen["epochs"] == [0, 0]  # before the first batch of an epoch
    assert seen["state"] == "paused"
    assert seen["later"] % BATCHES == BATCHES - 1  # the last batch trained


def test_a_client_that_waits_for_a_pause_is_told_that_the_training_has_ended(tmp_path: Path):
    def client(run: Run) -> dict:
        with pytest.raises(RunEndedError, match="finished"):
            run.train(10**6)
        return {}

    train_with(client, tmp_path, max_epochs=60)
