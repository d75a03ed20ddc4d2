"""Forwards on two samples, without side effects."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torchmetrics.classification import MulticlassAccuracy

from revacnn_lightning import EditRefusedError
from revacnn_lightning.runtime.sample_forward import make_forwards

BATCH = (torch.randn(8, 3, 6, 6), torch.arange(8) % 2)


class Base(pl.LightningModule):
    """Has a network and a training_step, but no forward of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.accuracy = MulticlassAccuracy(2)
        self.shapes: list[tuple[int, ...]] = []
        self.logged: list[str] = []

    def log(self, name, *args, **kwargs):
        self.logged.append(name)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        self.shapes.append(tuple(images.shape))
        logits = self.net(images)
        self.accuracy(logits, labels)
        self.log("accuracy", self.accuracy)
        return {"loss": nn.functional.cross_entropy(logits, labels)}


class WithForward(Base):
    def forward(self, images):
        return self.net(images)


class Manual(Base):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


def run_all(module: Base, **options) -> list[object]:
    return [run() for run in make_forwards(module, BATCH, 0, make_context=nullcontext, **options)]


def test_training_step_runs_on_two_samples_if_there_is_no_forward():
    module = Base()
    [loss] = run_all(module)
    assert loss.ndim == 0
    assert module.shapes == [(2, 3, 6, 6)]


def test_forward_runs_first_and_training_step_second():
    logits, loss = run_all(WithForward())
    assert logits.shape == (2, 2)
    assert loss.ndim == 0


def test_nothing_is_logged_and_the_log_method_is_restored():
    module = Base()
    run_all(module)
    assert module.logged == []
    module.log("loss", 1)
    assert module.logged == ["loss"]
    assert "log" not in module.__dict__


def test_the_log_method_is_restored_after_an_error():
    module = Base()
    [run] = make_forwards(module, (torch.randn(8, 5, 6, 6), BATCH[1]), 0, make_context=nullcontext)
    with pytest.raises(RuntimeError, match="channels"):
        run()
    assert "log" not in module.__dict__


def test_metrics_are_restored():
    module = Base()
    module.accuracy(torch.tensor([[0.9, 0.1]]), torch.tensor([0]))
    before = {name: value.clone() for name, value in module.accuracy.metric_state.items()}
    run_all(module)
    for name, value in module.accuracy.metric_state.items():
        assert torch.equal(value, before[name])
    assert module.accuracy.compute() == 1.0


def test_manual_optimization_never_runs_training_step():
    module = Manual()
    with pytest.raises(EditRefusedError, match="ReVACNN\\(forward="):
        run_all(module)
    assert module.shapes == []


def test_the_user_forward_replaces_all_others():
    module = Manual()
    [output] = run_all(module, user_forward=lambda m, batch: m.net(batch[0]))
    assert output.shape == (2, 2)
