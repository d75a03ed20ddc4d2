"""Summaries for loggers: at the Trainer's interval, and without effect on the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

from revacnn_lightning import AddFilters, ReVACNN
from revacnn_lightning.history.network_statistics import NetworkAndDeadFilterTracker
from revacnn_lightning.runtime.logger_summaries import LoggerSummaries
from tests.client.simulated_run import snapshot, structure
from tests.small import At, TwoConvs, fit


class KeepingLogger(Logger):
    """Keeps the summaries of ReVACNN."""

    def __init__(self) -> None:
        super().__init__()
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.steps_of_losses: list[int] = []

    @property
    def name(self) -> str:
        return "keeping"

    @property
    def version(self) -> int:
        return 0

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        if any(name.startswith("revacnn/") for name in metrics):
            self.logged.append((step, metrics))
        elif "train_loss" in metrics:
            self.steps_of_losses.append(step)


class FailingLogger(KeepingLogger):
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        super().log_metrics(metrics, step)
        if any(name.startswith("revacnn/") for name in metrics):
            raise OSError("no connection")


def train(callback: ReVACNN, logger: Logger, *others: pl.Callback, **options: Any) -> pl.Trainer:
    options = {"log_every_n_steps": 10, "count": 60, **options}
    return fit(TwoConvs(), [*others, callback], logger=logger, record_all=False, **options)


def test_the_layers_are_logged_at_the_steps_at_which_lightning_logs():
    logger = KeepingLogger()
    train(ReVACNN(log_to_loggers=True), logger)
    assert [step for step, _ in logger.logged] == [9, 19, 29, 39, 49, 59]
    assert [step for step, _ in logger.logged] == logger.steps_of_losses
    figures = logger.logged[-1][1]
    assert {"revacnn/gradient/conv1", "revacnn/dead_share/conv2"} <= set(figures)
    assert all(isinstance(value, float) for value in figures.values())


def test_merged_batches_are_logged_at_the_last_step_of_them_that_is_due():
    logger = KeepingLogger()
    callback = ReVACNN(log_to_loggers=True, publish="0.01 Hz", keep_batches=5)  # records all
    train(callback, logger)
    assert [step for step, _ in logger.logged] == [59]


def test_batches_that_arrive_later_as_from_a_gpu_were_not_logged_at_every_step():
    steps = iter((step, True) for step in range(3))
    network = NetworkAndDeadFilterTracker()
    network.update_structure(structure())
    logger = KeepingLogger()
    summaries = LoggerSummaries(lambda: [logger], lambda: next(steps), network)
    for step in range(3):
        summaries.needs_batch(step)
        if step:
            summaries.receive(snapshot(step - 1))
    assert [step for step, _ in logger.logged] == [0, 1]


def test_accumulated_batches_are_logged_once_per_step():
    logger = KeepingLogger()
    train(ReVACNN(log_to_loggers=True), logger, accumulate_grad_batches=2, log_every_n_steps=5)
    assert [step for step, _ in logger.logged] == [4, 9, 14, 19, 24, 29]


def test_nothing_is_logged_unless_asked_for():
    logger = KeepingLogger()
    train(ReVACNN(), logger)
    assert logger.logged == []


def test_edits_are_logged():
    logger, callback = KeepingLogger(), ReVACNN(log_to_loggers=True)
    train(callback, logger, At(25, lambda *_: callback.steer(AddFilters("conv1", 2))))
    [(step, figures)] = [one for one in logger.logged if "revacnn/edits" in one[1]]
    assert 20 <= step <= 30
    assert figures["revacnn/edits"] == 1
    assert figures["revacnn/parameters"] > 0


class ZeroFilter(TwoConvs):
    """From batch 15 on, a filter of its first layer is zero, also right after each step."""

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.trainer.global_step >= 15:
            with torch.no_grad():
                self.conv1.weight[1] = 0
                self.conv1.weight.grad[1] = 0
                for value in optimizer.state[self.conv1.weight].values():
                    if value is not None and value.shape == self.conv1.weight.shape:
                        value[1] = 0


def test_findings_are_logged_at_the_steps_of_the_summaries():
    logger = KeepingLogger()
    fit(
        ZeroFilter(), [ReVACNN(log_to_loggers=True)], logger=logger, log_every_n_steps=10,
        count=40, record_all=False,
    )  # fmt: skip
    zero = {step: one.get("revacnn/findings/conv1/zero") for step, one in logger.logged}
    assert zero == {9: None, 19: 1.0, 29: 1.0, 39: 1.0}


def test_a_logger_that_fails_stops_nothing(caplog: pytest.LogCaptureFixture):
    logger = FailingLogger()
    trainer = train(ReVACNN(log_to_loggers=True), logger)
    assert trainer.global_step == 60
    assert len(logger.logged) == 1
    assert "FailingLogger does not accept the summaries" in caplog.text


def test_loggers_of_lightning_accept_the_summaries(tmp_path: Path):
    pytest.importorskip("tensorboard")
    loggers = [CSVLogger(tmp_path / "csv"), TensorBoardLogger(tmp_path / "tensorboard")]
    fit(
        TwoConvs(), [ReVACNN(log_to_loggers=True)], logger=loggers, log_every_n_steps=5,
        record_all=False,
    )  # fmt: skip
    [csv] = (tmp_path / "csv").rglob("metrics.csv")
    assert "revacnn/gradient/conv1" in csv.read_text().splitlines()[0]
    assert list((tmp_path / "tensorboard").rglob("events.*"))
