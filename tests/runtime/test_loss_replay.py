"""The loss of a recorded training step is computed again, whatever training_step does."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F

from revacnn_lightning.runtime import loss_replay
from revacnn_lightning.runtime.loss_replay import LossReplay

IMAGES, LABELS = torch.randn(40, 3, 6, 6), torch.arange(40) % 2


class Classifier(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.head = nn.Linear(4, 2)
        self.steps = 0

    def training_step(self, batch, batch_idx):
        self.steps += 1
        images, labels = batch
        return self.loss(F.dropout(self.head(self.net(images)), training=self.training), labels)

    def loss(self, scores, labels):
        return F.cross_entropy(scores, labels)


class WithPenalty(Classifier):
    """Returns a dictionary, reshapes by the size of the batch, and decays its weights."""

    def loss(self, scores, labels):
        rows = scores.view(len(labels), 2)
        penalty = sum(parameter.square().sum() for parameter in self.parameters())
        return {"loss": F.mse_loss(rows[:, 0], labels.float()) + 0.1 * penalty, "scores": rows}


class Manual(Classifier):
    def training_step(self, batch, batch_idx):
        super().training_step(batch, batch_idx).backward()


class OwnFunction(Classifier):
    def loss(self, scores, labels):
        return Negate.apply(F.cross_entropy(scores, labels))


class Unrelated(Classifier):
    def loss(self, scores, labels):
        return torch.tensor(float(scores.detach().sum()))


class Negate(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return -x

    @staticmethod
    def backward(context, gradient):
        return -gradient


def replay_of(module: Classifier) -> LossReplay:
    replay = LossReplay(module)
    replay.want()
    assert replay.needs_step(0, 7)
    replay.record((IMAGES, LABELS), 0, 7, lambda: module.training_step((IMAGES, LABELS), 0))
    replay.finish_recording()
    return replay


def expected(module: Classifier, group: int) -> float:
    rows = slice(13 * group, 13 * (group + 1))
    module.eval()
    with torch.no_grad():
        loss = module.training_step((IMAGES[rows], LABELS[rows]), 0)
    module.train()
    return float(loss["loss"] if isinstance(loss, dict) else loss)


@pytest.mark.parametrize("kind", [Classifier, WithPenalty, OwnFunction])
def test_each_group_has_the_loss_of_its_images_in_evaluation_mode(kind):
    module = kind()
    replay = replay_of(module)
    assert (replay.note, replay.step, replay.group_count) == ("", 7, 3)
    assert module.steps == 1
    with torch.no_grad():  # training goes on
        module.head.weight.mul_(3)
    losses = replay.losses()
    assert module.steps == 1
    assert losses == pytest.approx([expected(module, group) for group in range(3)], rel=1e-5)


@pytest.mark.parametrize(("size", "groups"), [(40, 3), (32, 2), (20, 2), (2, 2)])
def test_a_batch_is_split_into_few_groups_but_at_least_two(size, groups):
    module = Classifier()
    replay = LossReplay(module)
    replay.want()
    batch = (IMAGES[:size], LABELS[:size])
    replay.record(batch, 0, 0, lambda: module.training_step(batch, 0))
    replay.finish_recording()
    assert replay.group_count == groups
    assert replay.images == size - size % groups


def test_a_replay_changes_nothing():
    module = Classifier()
    replay = replay_of(module)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    random_state = torch.get_rng_state()
    replay.losses()
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert module.training


@pytest.mark.parametrize("kind", [Manual, Unrelated])
def test_a_loss_that_is_not_known_has_a_reason(kind):
    replay = replay_of(kind())
    assert replay.note == loss_replay.NO_LOSS
    assert replay.losses() == []
    assert replay.is_ready(0)


def test_another_step_is_recorded_only_while_it_is_wanted():
    now = [0.0]
    module = Classifier()
    replay = LossReplay(module, clock=lambda: now[0])
    assert not replay.needs_step(0, 0)
    replay.want()
    assert replay.needs_step(0, 0)
    replay.record((IMAGES, LABELS), 0, 0, lambda: module.training_step((IMAGES, LABELS), 0))
    assert replay.is_ready(0)
    assert not replay.is_ready(1)  # of another structure
    assert not replay.needs_step(0, 0)
    assert replay.needs_step(1, 1)
    assert replay.needs_step(0, loss_replay.FRESH_BATCHES)
    now[0] = loss_replay.WANTED_SECONDS
    assert not replay.needs_step(1, 1)


def test_the_images_of_several_batches_are_used_until_they_are_enough():
    module = Classifier()
    replay = LossReplay(module)
    replay.want()
    for step in range(9):
        assert replay.needs_step(0, step) == (step < 7)
        replay.record((IMAGES, LABELS), 0, step, lambda: module.training_step((IMAGES, LABELS), 0))
        replay.finish_recording()
        assert replay.images == min(39 * (step + 1), 260)  # the last ones that are needed
    assert len(replay.losses()) == replay.group_count
    assert len(replay.losses(3)) == 3
    assert len(replay.losses(seconds=0)) == loss_replay.MIN_GROUPS


def test_large_images_are_fewer(monkeypatch):
    monkeypatch.setattr(loss_replay, "MAX_ELEMENTS", 16 * IMAGES[0].numel())
    assert replay_of(Classifier()).images == 16


def test_compiled_networks_are_left_alone():
    module = Classifier()
    module.net = torch.compile(module.net, backend="eager")
    replay = LossReplay(module)
    replay.want()
    assert not replay.needs_step(0, 0)
    assert replay.is_ready(0)
    assert replay.note == loss_replay.COMPILED
