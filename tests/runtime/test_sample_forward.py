"""A real forward on two samples, of which nobody but the tracer ever learns."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torchmetrics.classification import MulticlassAccuracy

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.runtime.sample_forward import batch_size, forwards_of, samples

BATCH = (torch.randn(8, 3, 6, 6), torch.arange(8) % 2)


class Base(pl.LightningModule):
    """Has a network and a training_step, but no forward of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.accuracy = MulticlassAccuracy(2)
        self.seen: list[tuple[int, ...]] = []
        self.logged: list[str] = []

    def log(self, name, *args, **kwargs):
        self.logged.append(name)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        self.seen.append(tuple(images.shape))
        logits = self.net(images)
        self.accuracy(logits, labels)
        self.log("accuracy", self.accuracy)
        return {"loss": nn.functional.cross_entropy(logits, labels)}


class WithForward(Base):
    def forward(self, images):
        return self.net(images)


class ByHand(Base):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


def run_all(module: Base, **options) -> list[object]:
    return [run() for run in forwards_of(module, BATCH, 0, context=nullcontext, **options)]


def test_training_step_is_run_on_two_samples_where_there_is_no_forward():
    module = Base()
    [loss] = run_all(module)
    assert loss.ndim == 0
    assert module.seen == [(2, 3, 6, 6)]


def test_forward_comes_first_and_training_step_is_run_too_for_what_only_it_uses():
    logits, loss = run_all(WithForward())
    assert logits.shape == (2, 2)
    assert loss.ndim == 0


def test_nothing_is_logged_and_the_log_method_is_back_afterwards():
    module = Base()
    run_all(module)
    assert module.logged == []
    module.log("loss", 1)
    assert module.logged == ["loss"]
    assert "log" not in module.__dict__


def test_the_log_method_is_back_after_an_error():
    module = Base()
    [run] = forwards_of(module, (torch.randn(8, 5, 6, 6), BATCH[1]), 0, context=nullcontext)
    with pytest.raises(RuntimeError, match="channels"):
        run()
    assert "log" not in module.__dict__


def test_metrics_do_not_count_the_samples():
    module = Base()
    module.accuracy(torch.tensor([[0.9, 0.1]]), torch.tensor([0]))
    before = {name: value.clone() for name, value in module.accuracy.metric_state.items()}
    run_all(module)
    for name, value in module.accuracy.metric_state.items():
        assert torch.equal(value, before[name])
    assert module.accuracy.compute() == 1.0


def test_manual_optimization_never_runs_training_step():
    module = ByHand()
    with pytest.raises(EditRefusedError, match="ReVACNN\\(forward="):
        run_all(module)
    assert module.seen == []


def test_the_users_own_forward_replaces_all_others():
    module = ByHand()
    [output] = run_all(module, user_forward=lambda m, batch: m.net(batch[0]))
    assert output.shape == (2, 2)


@pytest.mark.parametrize(
    "batch",
    [
        {"image": torch.zeros(5, 3, 8, 8), "label": torch.zeros(5), "scale": torch.zeros(3)},
        [torch.zeros(5, 3, 8, 8), (torch.zeros(5, 2), "name")],
        torch.zeros(5, 3, 8, 8),
    ],
    ids=["dict", "nested", "tensor"],
)
def test_samples_cuts_every_tensor_that_has_the_batch_dimension(batch):
    small = samples(batch)
    assert batch_size(batch) == 5
    assert batch_size(small) == 2
    if isinstance(batch, dict):
        assert small["label"].shape == (2,)
        assert small["scale"].shape == (3,)
