"""The loss of a recorded training step is computed again, whatever training_step does."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F

from revacnn_lightning import RemoveFilters
from revacnn_lightning.runtime import loss_replay
from revacnn_lightning.runtime.loss_replay import LossReplay
from revacnn_lightning.runtime.removal_prices import LossChangeMeasurer
from revacnn_lightning.steering import Editor, ForwardProbe

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


def make_replay_function(module: Classifier) -> LossReplay:
    replay = LossReplay(module)
    replay.request_recording()
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
    replay = make_replay_function(module)
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
    replay.request_recording()
    batch = (IMAGES[:size], LABELS[:size])
    replay.record(batch, 0, 0, lambda: module.training_step(batch, 0))
    replay.finish_recording()
    assert replay.group_count == groups
    assert replay.image_count == size - size % groups


def test_a_replay_changes_nothing():
    module = Classifier()
    replay = make_replay_function(module)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    random_state = torch.get_rng_state()
    replay.losses()
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert module.training


@pytest.mark.parametrize("kind", [Manual, Unrelated])
def test_a_loss_that_is_not_known_has_a_reason(kind):
    replay = make_replay_function(kind())
    assert replay.note == loss_replay.NO_LOSS
    assert replay.losses() == []
    assert replay.is_ready(0)


def test_another_step_is_recorded_only_while_it_is_wanted():
    now = [0.0]
    module = Classifier()
    replay = LossReplay(module, clock=lambda: now[0])
    assert not replay.needs_step(0, 0)
    replay.request_recording()
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
    replay.request_recording()
    for step in range(9):
        assert replay.needs_step(0, step) == (step < 7)
        replay.record((IMAGES, LABELS), 0, step, lambda: module.training_step((IMAGES, LABELS), 0))
        replay.finish_recording()
        assert replay.image_count == min(39 * (step + 1), 260)  # the last ones that are needed
    assert len(replay.losses()) == replay.group_count
    assert len(replay.losses(3)) == 3
    assert len(replay.losses(seconds=0)) == loss_replay.MIN_GROUPS


def test_large_images_are_fewer(monkeypatch):
    monkeypatch.setattr(loss_replay, "MAX_ELEMENTS", 16 * IMAGES[0].numel())
    assert make_replay_function(Classifier()).image_count == 16


def test_compiled_networks_are_left_alone():
    module = Classifier()
    module.net = torch.compile(module.net, backend="eager")
    replay = LossReplay(module)
    replay.request_recording()
    assert not replay.needs_step(0, 0)
    assert replay.is_ready(0)
    assert replay.note == loss_replay.COMPILED


class Detector(nn.Module):
    """Returns losses in training mode and detections in evaluation mode, as torchvision's do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Conv2d(4, 4, 1)
        )
        self.head = nn.Conv2d(4, 5, 1)

    def forward(self, images, targets=None):
        maps = [self.head(self.body(image[None])).mean((0, 2, 3)) for image in images]
        if not self.training:
            return [{"boxes": each[None, :4], "scores": each[4:]} for each in maps]
        boxes = [F.l1_loss(m[:4], t["boxes"][0]) for m, t in zip(maps, targets, strict=True)]
        noise = torch.rand(len(maps))  # such as the choice of proposals
        scores = [n * m[4].square() for n, m in zip(noise, maps, strict=True)]
        return {"boxes": torch.stack(boxes).mean(), "scores": torch.stack(scores).mean()}


class Detection(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = Detector()

    def training_step(self, batch, batch_idx):
        return sum(self.net(*batch).values())


def detection_batch(seed: int, count: int = 3):
    generator = torch.Generator().manual_seed(seed)
    images = [torch.randn(3, 6 + i, 7, generator=generator) for i in range(count)]
    targets = [{"boxes": torch.rand(1, 4, generator=generator)} for _ in images]
    return images, targets


def record_detection(replay: LossReplay, module: Detection, step: int) -> None:
    batch = detection_batch(step)
    replay.record(batch, 0, step, lambda: module.training_step(batch, 0))
    replay.finish_recording()


def test_the_loss_of_a_detector_is_that_of_training_without_dropout_and_batch_statistics():
    module = Detection().train()
    replay = LossReplay(module)
    replay.request_recording()
    record_detection(replay, module, 7)
    assert replay.note == ""
    assert replay.needs_step(0, 8)  # another one, so that there is a spread
    record_detection(replay, module, 8)
    assert (replay.group_count, replay.image_count) == (2, 6)
    random, state = torch.get_rng_state(), [t.clone() for t in module.state_dict().values()]
    losses = replay.losses()
    assert losses == replay.losses()
    assert torch.equal(torch.get_rng_state(), random)
    assert all(map(torch.equal, module.state_dict().values(), state))
    assert all(each.training for each in module.modules())
    for each in module.net.body:
        each.eval()
    for seed, loss in zip((8, 7), losses, strict=True):
        with torch.no_grad():
            torch.manual_seed(0)
            assert loss == pytest.approx(float(module.training_step(detection_batch(seed), 0)))


def test_the_price_of_a_filter_of_a_detector_is_the_change_of_its_loss():
    module = Detection().train()
    replay = LossReplay(module)
    replay.request_recording()
    record_detection(replay, module, 7)
    record_detection(replay, module, 8)
    editor = Editor(module)
    images, targets = detection_batch(7)
    probe = ForwardProbe([lambda: module.net(images, targets)])
    plan = editor.plan(RemoveFilters("net.body.0", [1]), probe)
    price = LossChangeMeasurer(editor, replay).measure(plan, 0)
    assert not isinstance(price, str), price
    before = replay.losses()
    with torch.no_grad():
        module.net.body[4].weight[:, 1] = 0
    after = replay.losses()
    expected = [b - a for a, b in zip(before, after, strict=True)]
    assert price.change == pytest.approx(sum(expected) / 2, rel=1e-5)
    assert price.images == 6
    assert price.error > 0
