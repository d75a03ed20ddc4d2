from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from revacnn_lightning.telemetry import Recorder
from revacnn_lightning.telemetry.inspection.activation_maps import compute_activation_maps
from revacnn_lightning.telemetry.inspection.downsampling import project_rows_randomly
from revacnn_lightning.telemetry.inspection.histograms import histogram_of
from revacnn_lightning.telemetry.inspection.layer_detail import EXPIRY_SECONDS
from tests.manual_clock import ManualClock
from tests.telemetry import reference

IMAGES = torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(3))


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
def observed():
    model, clock = Net(), ManualClock()
    recorder = Recorder(model)
    recorder.details._clock = clock
    recorder.attach()
    yield model, clock, recorder
    recorder.detach()


def train(model, recorder):
    recorder.begin_batch()
    model.zero_grad()
    reference.train_step(model, IMAGES)
    recorder.end_batch()
    return recorder.collect_details()


def assert_normalized(actual: np.ndarray, values: Tensor, tolerance: float = 2e-3) -> None:
    """Check that an array is ``values`` divided by their largest magnitude, as float16."""
    assert actual.dtype == np.float16
    expected = (values / values.abs().max()).detach()
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def test_sample_of_an_open_layer(observed):
    model, _, recorder = observed
    assert train(model, recorder) == []
    recorder.details.open("first")
    (sample,) = train(model, recorder)
    assert sample.layer == "first"
    assert_normalized(sample.coefficients, model.first.weight.flatten(1))
    assert_normalized(sample.gradients, model.first.weight.grad.flatten(1))
    assert_normalized(sample.maps, model.map[0])
    assert_normalized(sample.map_gradients, model.map_gradient[0])


def test_inspection_statistics_of_an_open_layer_are_recorded(observed):
    model, _, recorder = observed
    train(model, recorder)
    recorder.details.open("first")
    recorder.begin_batch()
    reference.train_step(model, IMAGES)
    recording = recorder.end_batch()
    assert "firing" in recording.names
    assert np.isfinite(recording.values[recording.names.index("firing"), :4]).all()


def test_sample_rate_is_limited_by_request_and_recorder(observed):
    model, clock, recorder = observed
    train(model, recorder)
    layers = []
    for _ in range(40):  # 5 seconds
        recorder.details.open("first", hz=1000)
        recorder.details.open("second", hz=0.5)
        layers += [sample.layer for sample in train(model, recorder)]
        clock.now += 0.125
    assert layers.count("first") == 10
    assert layers.count("second") == 3


def test_layers_expire(observed):
    model, clock, recorder = observed
    recorder.details.open("first")
    recorder.details.open("second")
    clock.now += 0.6 * EXPIRY_SECONDS
    recorder.details.open("first")
    clock.now += 0.6 * EXPIRY_SECONDS
    train(model, recorder)
    assert recorder.details.layers == {"first"}
    clock.now += EXPIRY_SECONDS
    train(model, recorder)
    assert recorder.details.layers == frozenset()
    assert len(model.second.weight._backward_hooks) == 1  # the recorder's own


def test_last_request_determines_rate_and_smoothing(observed):
    model, clock, recorder = observed
    recorder.details.open("first", hz=2, smoothed=True)
    recorder.details.open("first", hz=0.1)
    assert len(train(model, recorder)) == 1
    clock.now += 5
    assert train(model, recorder) == []
    recorder.details.open("first", hz=2)
    (sample,) = train(model, recorder)
    assert_normalized(sample.gradients, model.first.weight.grad.flatten(1))


def test_smoothed_gradients(observed):
    model, clock, recorder = observed
    expected, count = None, 0
    for _ in range(30):
        clock.now += 0.1
        recorder.details.open("second", smoothed=True)
        samples = train(model, recorder)
        gradient = project_rows_randomly(model.second.weight.grad.detach().flatten(1).clone())
        expected = gradient if expected is None else expected + (gradient - expected) * 2 / 21
        for sample in samples:
            count += 1
            assert_normalized(sample.gradients, expected, 5e-3)
    assert count >= 5


def test_pinned_image_has_no_side_effects(observed):
    model, _, recorder = observed
    train(model, recorder)
    image = torch.randn(3, 12, 12)
    recorder.details.pin_image(image)
    recorder.details.open("first")
    recorder.begin_batch()
    model.zero_grad()
    reference.train_step(model, IMAGES)
    recorder.end_batch()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradient = model.first.weight.grad.clone()
    random_state = torch.get_rng_state()
    model.drop.eval()  # one module is in another mode than the rest
    (sample,) = recorder.collect_details()
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.equal(model.first.weight.grad, gradient)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert model.bn.training
    assert not model.drop.training
    assert sample.map_gradients is None
    expected = model.relu(
        nn.functional.batch_norm(
            model.first(image[None]),
            model.bn.running_mean,
            model.bn.running_var,
            model.bn.weight,
            model.bn.bias,
        )
    )[0]
    assert_normalized(sample.maps, expected)


def test_modes_are_restored_after_an_exception():
    model = Net()
    with pytest.raises(RuntimeError):
        compute_activation_maps(model, torch.zeros(7, 12, 12), {"first": model.first})
    assert all(module.training for module in model.modules())
    assert not torch.nn.modules.module._global_forward_hooks


def test_frozen_layer_and_removed_layer(observed):
    model, clock, recorder = observed
    model.first.weight.requires_grad_(False)
    train(model, recorder)
    recorder.details.open("first")
    (sample,) = train(model, recorder)
    assert sample.gradients is None
    assert sample.coefficients is not None
    recorder.details.open("gone")
    clock.now += 1
    assert [sample.layer for sample in train(model, recorder)] == ["first"]
    assert recorder.details.layers == {"first"}


def test_detach_closes_all_layers(observed):
    model, _, recorder = observed
    recorder.details.open("first")
    recorder.begin_batch()
    recorder.detach()
    assert not any(p._backward_hooks for p in model.parameters())


def test_the_histograms_of_a_sample_are_those_of_weight_and_gradient(observed):
    model, _, recorder = observed
    recorder.details.open("first")
    recorder.begin_batch(loss_scale=8.0)
    model.zero_grad()
    reference.train_step(model, IMAGES)
    recorder.end_batch(grad_scale=0.5)  # mixed precision and accumulation multiply the loss
    (sample,) = recorder.collect_details()
    expected = histogram_of(model.first.weight.detach().flatten())
    assert sample.weight_histogram.limit == expected.limit
    assert np.array_equal(sample.weight_histogram.counts, expected.counts)
    gradient = histogram_of(model.first.weight.grad.flatten() / 4.0)
    assert sample.gradient_histogram.limit == pytest.approx(gradient.limit, rel=1e-6)
    assert np.array_equal(sample.gradient_histogram.counts, gradient.counts)


def test_a_frozen_layer_and_a_paused_run_have_no_histogram_of_gradients(observed):
    model, _, recorder = observed
    model.first.weight.requires_grad_(False)
    recorder.details.open("first")
    (sample,) = train(model, recorder)
    assert sample.gradient_histogram is None
    (sample,) = recorder.collect_details_while_paused(["first"])
    assert sample.gradient_histogram is None
    assert sample.weight_histogram.counts.sum() == model.first.weight.numel()
