from __future__ import annotations

import copy
import pickle
import weakref
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules import module as module_internals
from torch.optim import optimizer as optimizer_internals

from revacnn_lightning.telemetry import Recorder
from tests.telemetry import obvious


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 6, 3, groups=2),
        nn.MaxPool2d(2),
        nn.ConvTranspose2d(6, 8, 2, groups=2),
        nn.Hardswish(),
    )


def record(model, images, recorder=None, **kwargs):
    recorder = recorder or Recorder(model)
    recorder.attach()
    model.zero_grad()
    recorder.begin_batch()
    obvious.train_step(model, images)
    recording = recorder.end_batch(**kwargs)
    assert recording is not None
    return recording


def of_layer(recording, name, layer):
    start = sum(recording.widths[: recording.layers.index(layer)])
    width = recording.widths[recording.layers.index(layer)]
    return recording.values[recording.names.index(name), start : start + width]


@pytest.fixture(autouse=True)
def _nothing_left():
    yield
    module_internals._global_forward_hooks.clear()
    optimizer_internals._global_optimizer_pre_hooks.clear()
    optimizer_internals._global_optimizer_post_hooks.clear()


def maps_of(model, images):
    """Output of each module, copied before the next one may overwrite it."""
    maps = []
    for module in model:
        images = module(images)
        maps.append(images.detach().clone())
    return maps


IMAGES = torch.randn(5, 3, 12, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("batches", [1, 2, 3])
def test_always_set_against_the_obvious_version(batches):
    model = small()
    recorder = Recorder(model)
    for _ in range(batches):  # the first one finds out what follows what
        recording = record(model, IMAGES, recorder)
    assert recording.layers == ["0", "3", "5"]
    assert recording.widths == [4, 6, 8]
    assert recorder.activation_of == {"0": "2", "3": "", "5": "6"}
    for name in recording.layers:
        conv = model[int(name)]
        np.testing.assert_allclose(
            of_layer(recording, "gradient", name),
            obvious.mean_absolute_coefficient(conv.weight.grad, conv),
            rtol=1e-4,
        )
        np.testing.assert_allclose(
            of_layer(recording, "weight_norm", name), obvious.norm(conv.weight, conv), rtol=1e-5
        )
    maps = maps_of(model, IMAGES)
    for name, map_ in {"0": maps[2], "3": maps[3].abs(), "5": maps[6]}.items():
        np.testing.assert_allclose(
            of_layer(recording, "activation", name), obvious.pixel_sum(map_), rtol=1e-4, atol=1e-4
        )
    assert not recording.nonfinite


def test_update_ratio():
    model = small()
    optimizer = torch.optim.Adam(model.parameters())
    recorder = Recorder(model)
    recorder.attach()
    for _ in range(2):
        optimizer.zero_grad()
        before = copy.deepcopy(model)
        recorder.begin_batch()
        obvious.train_step(model, IMAGES)
        optimizer.step()
        recording = recorder.end_batch()
    for name in recording.layers:
        old, new = before[int(name)], model[int(name)]
        expected = obvious.norm(new.weight - old.weight, new) / obvious.norm(new.weight, new)
        np.testing.assert_allclose(of_layer(recording, "update_ratio", name), expected, rtol=1e-3)


def test_only_this_micro_batch():
    model = small()
    first = record(model, IMAGES)
    recorder = Recorder(model)
    recorder.attach()
    recorder.begin_batch()
    obvious.train_step(model, IMAGES)  # adds to .grad
    second = recorder.end_batch()
    np.testing.assert_allclose(second.values[0], first.values[0], rtol=1e-4)


def test_a_recorder_that_rests_holds_no_gradient_and_then_counts_only_its_own_batch():
    model = small()
    expected = record(copy.deepcopy(model), IMAGES)
    recorder = Recorder(model)
    record(model, IMAGES, recorder)
    recorder.rest()
    gradient = weakref.ref(model[0].weight.grad)
    model.zero_grad()
    assert gradient() is None
    obvious.train_step(model, IMAGES)  # unrecorded, and .grad is not emptied after it
    recorder.begin_batch()
    obvious.train_step(model, IMAGES)
    again = recorder.end_batch()
    np.testing.assert_allclose(again.values[:2], expected.values[:2], rtol=1e-4)


def test_grad_scale():
    model = small()
    plain, scaled = record(model, IMAGES), record(model, IMAGES, grad_scale=1024 / 3)
    np.testing.assert_allclose(scaled.values[0], plain.values[0] * 3 / 1024, rtol=1e-5)
    np.testing.assert_allclose(scaled.values[1], plain.values[1], rtol=1e-5)


def test_a_shared_conv_and_a_shared_relu_are_counted_once():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.again = self.conv
            self.other = nn.Conv2d(3, 3, 1)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x):
            return self.relu(self.other(self.relu(self.again(self.relu(self.conv(x))))))

    torch.manual_seed(0)
    model = Shared()
    recorder = Recorder(model)
    for _ in range(2):
        recording = record(model, IMAGES, recorder)
    assert recording.layers == ["conv", "other"]
    np.testing.assert_allclose(
        of_layer(recording, "gradient", "conv"),
        obvious.mean_absolute_coefficient(model.conv.weight.grad, model.conv),
        rtol=1e-4,
    )
    first = model.conv(IMAGES).relu()
    second = model.conv(first).relu()
    np.testing.assert_allclose(
        of_layer(recording, "activation", "conv"),
        (obvious.pixel_sum(first) + obvious.pixel_sum(second)) / 2,
        rtol=1e-4,
    )


@pytest.mark.parametrize("in_place", [True, False])
def test_a_residual_sum_is_not_the_map_of_one_conv(in_place):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.bn = nn.BatchNorm2d(3)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x):
            y = self.bn(self.conv(x))
            if in_place:
                y += x
            else:
                y = y + x
            return self.relu(y)

    torch.manual_seed(0)
    model = Block()
    recorder = Recorder(model)
    for _ in range(2):
        recording = record(model, IMAGES, recorder)
    assert recorder.activation_of == {"conv": ""}
    np.testing.assert_allclose(
        of_layer(recording, "activation", "conv"),
        obvious.pixel_sum(model.conv(IMAGES).abs()),
        rtol=1e-4,
    )


def test_validation_is_not_counted():
    model = small()
    recorder = Recorder(model)
    expected = record(model, IMAGES, recorder)
    model(torch.randn(7, 3, 12, 12))
    model.zero_grad()
    again = record(model, IMAGES, recorder)
    np.testing.assert_allclose(again.values, expected.values, rtol=1e-4, equal_nan=True)


def trace_of_us(model):
    return [
        dict(module_internals._global_forward_hooks),
        {
            **optimizer_internals._global_optimizer_pre_hooks,
            **optimizer_internals._global_optimizer_post_hooks,
        },
        [p._backward_hooks for p in model.parameters() if p._backward_hooks],
        [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks],
        [m for m in model.modules() if m._backward_hooks or m._backward_pre_hooks],
    ]


def test_detach_leaves_nothing_also_after_an_exception():
    model = small()
    names = set(vars(model[0]))
    recorder = Recorder(model)
    recorder.attach()
    recorder.begin_batch()
    with pytest.raises(RuntimeError):
        model(torch.zeros(1, 5, 12, 12))  # wrong number of channels
    recorder.detach()
    recorder.detach()
    assert trace_of_us(model) == [{}, {}, [], [], []]
    assert set(vars(model[0])) == names
    assert recorder.end_batch() is None
    recorder.attach()
    recorder.attach()
    assert len(module_internals._global_forward_hooks) == 1
    record(model, IMAGES, recorder)
    recorder.detach()
    assert trace_of_us(model) == [{}, {}, [], [], []]


@pytest.mark.parametrize("batches_before", [0, 2])
def test_copies_and_pickles_in_the_middle_of_a_batch_know_nothing_of_us(batches_before):
    model = small()
    recorder = Recorder(model)
    recorder.attach()
    for _ in range(batches_before):
        record(model, IMAGES, recorder)
    recorder.begin_batch()
    obvious.train_step(model, IMAGES)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        recorder_of_twin = trace_of_us(twin)
        assert recorder_of_twin[2:] == [[], [], []]
        assert b"revacnn" not in pickle.dumps(twin)
        assert {type(m._forward_hooks) for m in twin.modules()} == {OrderedDict}
    recorder.detach()
    assert {type(m._forward_hooks) for m in model.modules()} == {OrderedDict}


def test_hooks_of_others_live_beside_ours():
    """Registered before, during and after the batches that rely on the trace; removed any time."""
    model = small()
    seen = []
    early = model[2].register_forward_hook(lambda *_: seen.append("early"))
    recorder = Recorder(model)
    expected = [record(model, IMAGES, recorder) for _ in range(2)][-1]
    early.remove()
    recorder.follow()
    for _ in range(2):
        recording = record(model, IMAGES, recorder)
    np.testing.assert_allclose(recording.values[:2], expected.values[:2], rtol=1e-4)
    assert seen == ["early"] * 2
    late = model[2].register_forward_hook(lambda *_: seen.append("late"))
    record(model, IMAGES, recorder)
    recorder.detach()
    model(IMAGES)
    assert seen == ["early"] * 2 + ["late"] * 2
    late.remove()
    model(IMAGES)
    assert len(seen) == 4
    assert not model[2]._forward_hooks


def test_follow_sees_new_removed_and_resized_convs():
    model = small()
    recorder = Recorder(model)
    record(model, IMAGES, recorder)
    model[0] = nn.Conv2d(3, 2, 3)
    model[1] = nn.BatchNorm2d(2)
    model[3] = nn.Conv2d(2, 6, 3, groups=2)
    model.insert(0, nn.Conv2d(3, 3, 1))
    recorder.follow()
    recording = record(model, IMAGES, recorder)
    assert recording.layers == ["0", "1", "4", "6"]
    assert recording.widths == [3, 2, 6, 8]
    for name in recording.layers:
        conv = model[int(name)]
        np.testing.assert_allclose(
            of_layer(recording, "gradient", name),
            obvious.mean_absolute_coefficient(conv.weight.grad, conv),
            rtol=1e-4,
        )


def test_frozen_and_unused_convs():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 3, 3)
            self.aside = nn.Conv2d(3, 2, 3)
            self.never = nn.Conv2d(3, 2, 3)

        def forward(self, x):
            self.aside(x)
            return self.first(x)

    model = Net()
    model.first.weight.requires_grad_(False)
    recording = record(model, IMAGES)
    assert np.isnan(of_layer(recording, "gradient", "first")).all()  # nobody computes it
    assert (of_layer(recording, "gradient", "aside") == 0).all()
    assert (of_layer(recording, "activation", "aside") > 0).all()
    assert (of_layer(recording, "activation", "never") == 0).all()
    assert np.isfinite(of_layer(recording, "weight_norm", "first")).all()
    assert not recording.nonfinite


def test_layers_come_in_forward_order():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.b = nn.Conv2d(3, 5, 3)
            self.a = nn.Conv2d(3, 3, 3)

        def forward(self, x):
            return self.b(self.a(x))

    model = Net()
    recorder = Recorder(model)
    assert recorder.layers == ["b", "a"]
    recording = record(model, IMAGES, recorder)
    assert recorder.layers == recording.layers == ["a", "b"]
    np.testing.assert_allclose(
        of_layer(recording, "gradient", "b"),
        obvious.mean_absolute_coefficient(model.b.weight.grad, model.b),
        rtol=1e-4,
    )


def test_an_infinite_gradient_is_flagged():
    model = nn.Sequential(nn.Conv2d(3, 2, 3))
    recorder = Recorder(model)
    recorder.attach()
    recorder.begin_batch()
    (model(IMAGES).sum() * torch.inf).backward()
    recording = recorder.end_batch()
    assert recording.nonfinite
    assert not np.isfinite(of_layer(recording, "gradient", "0")).all()


def test_unknown_statistic():
    with pytest.raises(ValueError, match="nonsense"):
        Recorder(small(), statistics=["nonsense"])
