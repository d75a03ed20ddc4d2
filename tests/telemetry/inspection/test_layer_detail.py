from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from revacnn_lightning.telemetry import Packed, Recorder
from revacnn_lightning.telemetry.inspection.downsampling import features, maps_of_image, thumbnails
from tests.telemetry import obvious

IMAGES = torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(3))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.second = nn.Conv2d(4, 5, 5)

    def forward(self, x):
        y = self.relu(self.bn(self.first(x)))
        self.map = y.detach().clone()
        if y.requires_grad:
            y.register_hook(lambda g: setattr(self, "map_gradient", g.clone()))
        return self.second(self.drop(y))


@pytest.fixture
def watched():
    model, clock = Net(), Clock()
    recorder = Recorder(model)
    recorder.details._clock = clock
    recorder.attach()
    yield model, clock, recorder
    recorder.detach()


def train(model, recorder, **options):
    recorder.begin_batch()
    model.zero_grad()
    obvious.train_step(model, IMAGES)
    recorder.end_batch()
    return recorder.read_details(**options)


def test_an_opened_layer(watched):
    model, _, recorder = watched
    assert train(model, recorder) == []
    recorder.details.open("first", "viewer")
    (detail,) = train(model, recorder, grad_scale=0.25, tag="batch 2")
    assert (detail.layer, detail.tag, detail.pinned) == ("first", "batch 2", False)
    weight = model.first.weight.detach()
    for packed, expected in [
        (detail.coefficients, weight.flatten(1)),
        (detail.gradients, model.first.weight.grad.flatten(1) / 0.25),
        (detail.maps, model.map[0]),
        (detail.map_gradients, model.map_gradient[0] / 0.25),
    ]:
        np.testing.assert_allclose(
            packed.unpacked(), expected, rtol=2e-3, atol=2e-3 * float(expected.abs().max())
        )
        assert packed.values.dtype == np.float16


def test_the_dearer_statistics_of_an_opened_layer_are_gathered(watched):
    model, _, recorder = watched
    train(model, recorder)
    recorder.details.open("first", "viewer")
    recorder.begin_batch()
    obvious.train_step(model, IMAGES)
    recording = recorder.end_batch()
    assert "firing" in recording.names
    assert np.isfinite(recording.values[recording.names.index("firing"), :4]).all()


def test_never_more_often_than_asked_for_nor_than_allowed(watched):
    model, clock, recorder = watched
    train(model, recorder)
    recorder.details.open("first", "fast", hz=1000)
    recorder.details.open("second", "slow", hz=0.5)
    made = []
    for _ in range(40):  # 5 seconds
        made += [detail.layer for detail in train(model, recorder)]
        clock.now += 0.125
    assert made.count("first") == 10
    assert made.count("second") == 3


def test_interest_expires(watched):
    model, clock, recorder = watched
    recorder.details.open("first", "a", seconds=5)
    recorder.details.open("first", "b", seconds=20)
    recorder.details.open("second", "a", seconds=5)
    clock.now += 6
    train(model, recorder)
    assert recorder.details.layers == {"first"}
    recorder.details.close("first", "b")
    assert recorder.details.layers == frozenset()
    assert len(model.second.weight._backward_hooks) == 1  # the recorder's own


def test_smoothed_gradients(watched):
    model, clock, recorder = watched
    recorder.details.open("second", "viewer", smoothed=True, seconds=1000)
    expected, made = None, 0
    for _ in range(30):
        clock.now += 0.1
        details = train(model, recorder)
        gradient = model.second.weight.grad.detach().flatten(1).clone()
        gradient = features(gradient)
        expected = gradient if expected is None else expected + (gradient - expected) * 2 / 21
        for detail in details:
            made += 1
            assert detail.smoothed
            np.testing.assert_allclose(
                detail.gradients.unpacked(),
                expected,
                rtol=5e-3,
                atol=5e-3 * float(expected.abs().max()),
            )
    assert made >= 5


def test_a_pinned_image_disturbs_nothing(watched):
    model, _, recorder = watched
    train(model, recorder)
    image = torch.randn(3, 12, 12)
    recorder.details.pin(image)
    recorder.details.open("first", "viewer")
    recorder.begin_batch()
    model.zero_grad()
    obvious.train_step(model, IMAGES)
    recorder.end_batch()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradient = model.first.weight.grad.clone()
    random = torch.get_rng_state()
    model.drop.eval()  # one module is in another mode than the rest
    (detail,) = recorder.read_details()
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(model.first.weight.grad, gradient)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert model.bn.training
    assert not model.drop.training
    assert detail.pinned
    assert detail.map_gradients is None
    expected = model.relu(
        nn.functional.batch_norm(
            model.first(image[None]),
            model.bn.running_mean,
            model.bn.running_var,
            model.bn.weight,
            model.bn.bias,
        )
    )[0]
    np.testing.assert_allclose(detail.maps.unpacked(), expected.detach(), rtol=2e-3, atol=2e-3)


def test_modes_come_back_after_an_exception():
    model = Net()
    with pytest.raises(RuntimeError):
        maps_of_image(model, torch.zeros(7, 12, 12), {"first": model.first})
    assert all(module.training for module in model.modules())
    assert not torch.nn.modules.module._global_forward_hooks


def test_a_wide_layer_is_sent_in_kilobytes():
    conv = nn.Conv2d(512, 512, 3)
    packed = Packed.of(features(conv.weight.detach().flatten(1)))
    assert packed.values.shape == (512, 64)
    assert packed.values.nbytes == 64 * 1024
    maps = thumbnails(torch.randn(512, 40, 40))
    assert Packed.of(maps).values.nbytes <= 128 * 1024


def test_the_projection_keeps_distances_and_is_always_the_same():
    torch.manual_seed(0)
    rows = torch.randn(40, 2000)
    random = torch.get_rng_state()
    small = features(rows)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(small, features(rows))
    ratio = torch.pdist(small) / torch.pdist(rows)
    assert 0.5 < ratio.min() < ratio.max() < 1.5


def test_small_and_infinite_numbers_survive_the_packing():
    tiny = torch.tensor([1e-12, -3e-12, 0.0])
    np.testing.assert_allclose(Packed.of(tiny).unpacked(), tiny, rtol=1e-3)
    broken = Packed.of(torch.tensor([1.0, torch.inf, torch.nan])).unpacked()
    assert broken[0] == 1
    assert np.isinf(broken[1])
    assert np.isnan(broken[2])
    assert (Packed.of(torch.zeros(3)).unpacked() == 0).all()


def test_a_frozen_layer_and_one_that_an_edit_removed(watched):
    model, clock, recorder = watched
    model.first.weight.requires_grad_(False)
    train(model, recorder)
    recorder.details.open("first", "viewer")
    (detail,) = train(model, recorder)
    assert detail.gradients is None
    assert detail.coefficients is not None
    recorder.details.open("gone", "viewer")
    clock.now += 1
    assert [detail.layer for detail in train(model, recorder)] == ["first"]
    assert recorder.details.layers == {"first"}


def test_detach_closes_everything(watched):
    model, _, recorder = watched
    recorder.details.open("first", "viewer")
    recorder.begin_batch()
    recorder.detach()
    assert not any(p._backward_hooks for p in model.parameters())
