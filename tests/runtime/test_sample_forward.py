"""Forwards on two samples, without side effects and without running training_step."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from revacnn_lightning import AddFilters, EditRefusedError, RemoveFilters, Undo
from revacnn_lightning.runtime.recorded_step import RecordedStep
from revacnn_lightning.runtime.sample_forward import SampleProbeFactory
from revacnn_lightning.steering import Editor
from revacnn_lightning.steering.tracing.forward_probe import (
    ForwardFailedError,
    evaluate_first_forward,
)
from revacnn_lightning.steering.tracing.traced_forwards import trace_channel_groups

BATCH = (torch.randn(8, 3, 6, 6), torch.arange(8) % 2)


class Base(pl.LightningModule):
    """Has a network and a training_step, but no forward of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.steps = 0

    def training_step(self, batch, batch_idx):
        self.steps += 1
        images, labels = batch
        return {"loss": nn.functional.cross_entropy(self.net(images), labels)}


class WithForward(Base):
    def forward(self, images):
        return self.net(images)


class TakesTheBatch(Base):
    def forward(self, batch):
        return self.net(batch[0])

    def training_step(self, batch, batch_idx):
        return self(batch).sum()


def forwards_of(module: Base, batch=BATCH, *, record: bool = True, **options) -> SampleProbeFactory:
    forwards = SampleProbeFactory(module, **options)
    if record:
        forwards.record(batch, 0, lambda: module.training_step(batch, 0))
        forwards.finish_recording()
    return forwards


def test_training_step_is_never_called():
    module = WithForward()
    forwards = forwards_of(module)
    assert module.steps == 1
    probe = forwards.make_probe(BATCH)
    trace_channel_groups(module, probe)
    evaluate_first_forward(module, probe)
    assert module.steps == 1


def test_forward_comes_first_and_the_recorded_step_second():
    module = WithForward()
    images, step = forwards_of(module).make_probe(BATCH).forwards
    assert images().shape == (2, 2)
    assert [tensor.ndim for tensor in step().tensors] == [0]


def test_a_forward_that_takes_the_batch_is_replayed_as_training_calls_it():
    module = TakesTheBatch()
    [step] = forwards_of(module).make_probe(BATCH).forwards
    assert step().tensors[0].ndim == 0


class DetectorNet(nn.Module):
    """Returns its losses in training, and what it detects in each image in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm, self.conv2 = (
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.Conv2d(4, 2, 3),
        )

    def forward(self, images, labels):
        maps = self.conv2(self.norm(self.conv1(images)).relu())
        if not self.training:
            return [{"boxes": each.amax(0), "scores": each.mean(0)} for each in maps]
        loss = nn.functional.cross_entropy(maps.mean((2, 3)), labels)
        return {"class": loss, "size": maps.square().mean()}


class TrainsDetector(Base):
    def __init__(self) -> None:
        super().__init__()
        self.net = DetectorNet()

    def training_step(self, batch, batch_idx):
        return sum(self.net(*batch).values())


def test_edits_of_a_detector_were_rolled_back_as_it_returns_no_losses_in_evaluation():
    module = TrainsDetector()
    probe, editor = forwards_of(module).make_probe(BATCH), Editor(module)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    editor.apply(RemoveFilters("net.conv1", [1]), probe)
    editor.apply(AddFilters("net.conv1"), probe)
    editor.apply(Undo(2), probe)
    assert all(each.training for each in module.modules())
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("features", [(3, 6, 6), (5,)])
def test_an_edit_was_verified_with_an_empty_batch_whose_outputs_are_all_equal(features):
    empty = (torch.randn(0, *features), torch.zeros(0, dtype=torch.int64))
    forwards = forwards_of(WithForward())
    assert forwards.is_batch_empty(empty)
    assert not forwards.is_batch_empty(BATCH)
    assert not forwards.is_batch_empty("no batch of tensors")
    [step] = forwards.make_probe(empty).forwards
    assert step().tensors[0].isfinite()
    of_user = forwards_of(WithForward(), user_forward=lambda module, batch: module(batch[0]))
    with pytest.raises(EditRefusedError, match="this batch holds no sample"):
        of_user.make_probe(empty)


def test_no_step_is_recorded_of_a_batch_without_a_sample():
    empty = (torch.randn(0, 3, 6, 6), torch.zeros(0, dtype=torch.int64))
    forwards = forwards_of(WithForward(), empty)
    assert forwards.needs_step(0)
    with pytest.raises(EditRefusedError, match="only after the next batch"):
        forwards.make_probe(BATCH)


def test_a_forward_that_fails_on_images_alone_does_not_veto():
    class Picky(WithForward):
        def forward(self, images, scale=None):
            return self.net(images) * scale

        def training_step(self, batch, batch_idx):
            return self(batch[0], scale=2.0).sum()

    assert len(forwards_of(Picky()).make_probe(BATCH).forwards) == 1


def test_without_a_recorded_step_the_probe_is_not_ready():
    forwards = forwards_of(WithForward(), record=False)
    assert not forwards.is_ready
    assert forwards.needs_step(0)
    with pytest.raises(EditRefusedError, match="train one"):
        forwards.make_probe(BATCH)


def test_a_step_is_recorded_once_per_structure():
    forwards = forwards_of(WithForward())
    assert forwards.is_ready
    assert not forwards.needs_step(0)
    assert forwards.needs_step(1)


def test_the_user_forward_replaces_all_others():
    module = Base()
    forwards = forwards_of(module, record=False, user_forward=lambda m, batch: m.net(batch[0]))
    assert forwards.is_ready
    assert not forwards.needs_step(0)
    [forward] = forwards.make_probe(BATCH).forwards
    assert forward().shape == (2, 2)


def test_a_forward_that_overwrites_its_input_leaves_the_batch_and_the_next_forward_alone():
    class InPlace(WithForward):
        def forward(self, images):
            return self.net(images.sub_(1))

    module = InPlace()
    batch = (BATCH[0].clone(), BATCH[1])
    forwards = forwards_of(module, (BATCH[0].clone(), BATCH[1]))
    probe = forwards.make_probe(batch)
    first, second = evaluate_first_forward(module, probe), evaluate_first_forward(module, probe)
    assert torch.equal(first[0], second[0])
    assert torch.equal(batch[0], BATCH[0])


def test_a_step_that_uses_no_module_is_refused_with_what_to_do():
    class Idle(Base):
        def training_step(self, batch, batch_idx):
            return batch[0].mean()

    with pytest.raises(EditRefusedError, match="the option forward="):
        forwards_of(Idle()).make_probe(BATCH)


def test_a_network_that_runs_only_inside_a_transform_is_refused_with_the_reason():
    class Transformed(Base):
        def training_step(self, batch, batch_idx):
            output = torch.func.vmap(lambda image: self.net(image[None])[0])(batch[0])
            return output.mean()

    with pytest.raises(EditRefusedError, match="a transform of torch\\.func"):
        forwards_of(Transformed()).make_probe(BATCH)


def test_a_recorded_step_that_cannot_be_replayed_is_a_reason_and_no_internal_error(
    monkeypatch: pytest.MonkeyPatch,
):
    def fail(*args):
        raise RuntimeError("a tensor has escaped")

    monkeypatch.setattr(RecordedStep, "prepare", fail)
    with pytest.raises(EditRefusedError, match="a tensor has escaped"):
        forwards_of(Base()).make_probe(BATCH)


def test_a_failing_forward_says_what_to_do():
    def broken(module, batch):
        raise ZeroDivisionError

    module = Base()
    probe = forwards_of(module, record=False, user_forward=broken).make_probe(BATCH)
    with pytest.raises(ForwardFailedError) as caught:
        trace_channel_groups(module, probe)
    assert "the option forward=" in caught.value.hint


def test_an_error_of_the_recorder_does_not_reach_training(monkeypatch: pytest.MonkeyPatch):
    from revacnn_lightning.runtime import step_recorder

    def fail(*args):
        raise ZeroDivisionError

    monkeypatch.setattr(step_recorder, "take_first_samples", fail)
    module = Base()
    forwards = SampleProbeFactory(module)
    output = forwards.record(BATCH, 0, lambda: module.training_step(BATCH, 0))
    assert torch.isfinite(output["loss"])
    assert forwards.is_ready
    assert not forwards.needs_step(1)


def test_a_network_that_other_processes_must_run_too_is_not_run():
    module = WithForward()
    forwards = forwards_of(module, record=False, refusal="this training runs in 2 processes")
    assert forwards.is_ready
    assert not forwards.needs_step(0)
    with pytest.raises(EditRefusedError, match="2 processes"):
        forwards.make_probe(BATCH)
