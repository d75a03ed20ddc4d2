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

from revacnn_lightning.telemetry import STATISTICS, Recorder
from revacnn_lightning.telemetry.recording import (
    gradient_reader,
    map_reducer,
    optimizer_hooks,
)
from revacnn_lightning.telemetry.recording.activation_sums import ActivationSums
from tests.telemetry import reference


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
    reference.train_step(model, images)
    recording = recorder.end_batch(**kwargs)
    assert recording is not None
    return recording


def of_layer(recording, name, layer):
    start = sum(recording.widths[: recording.layers.index(layer)])
    width = recording.widths[recording.layers.index(layer)]
    return recording.values[recording.names.index(name), start : start + width]


@pytest.fixture(autouse=True)
def _clear_global_hooks():
    yield
    module_internals._global_forward_hooks.clear()
    optimizer_internals._global_optimizer_pre_hooks.clear()
    optimizer_internals._global_optimizer_post_hooks.clear()


def maps_of(model, images):
    """Return the output of each module, copied before the next one may overwrite it."""
    maps = []
    for module in model:
        images = module(images)
        maps.append(images.detach().clone())
    return maps


IMAGES = torch.randn(5, 3, 12, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("batches", [1, 2, 3])
def test_default_statistics_match_reference(batches):
    model = small()
    recorder = Recorder(model)
    for _ in range(batches):  # the first is the discovery batch
        recording = record(model, IMAGES, recorder)
    assert recording.layers == ["0", "3", "5"]
    assert recording.widths == [4, 6, 8]
    assert recorder.activation_sources == {"0": "2", "3": "", "5": "6"}
    for name in recording.layers:
        conv = model[int(name)]
        np.testing.assert_allclose(
            of_layer(recording, "gradient", name),
            reference.mean_absolute_coefficient(conv.weight.grad, conv),
            rtol=1e-4,
        )
        np.testing.assert_allclose(
            of_layer(recording, "weight_norm", name), reference.norm(conv.weight, conv), rtol=1e-5
        )
    maps = maps_of(model, IMAGES)
    for name, map_ in {"0": maps[2], "3": maps[3].abs(), "5": maps[6]}.items():
        np.testing.assert_allclose(
            of_layer(recording, "activation", name), reference.pixel_sum(map_), rtol=1e-4, atol=1e-4
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
        reference.train_step(model, IMAGES)
        optimizer.step()
        recording = recorder.end_batch()
    for name in recording.layers:
        old, new = before[int(name)], model[int(name)]
        expected = reference.norm(new.weight - old.weight, new) / reference.norm(new.weight, new)
        np.testing.assert_allclose(of_layer(recording, "update_ratio", name), expected, rtol=1e-3)


def test_gradient_is_of_this_micro_batch_only():
    model = small()
    first = record(model, IMAGES)
    recorder = Recorder(model)
    recorder.attach()
    recorder.begin_batch()
    reference.train_step(model, IMAGES)  # adds to .grad
    second = recorder.end_batch()
    np.testing.assert_allclose(second.values[0], first.values[0], rtol=1e-4)


def test_release_tensors_releases_gradients_and_keeps_batches_apart():
    model = small()
    expected = record(copy.deepcopy(model), IMAGES)
    recorder = Recorder(model)
    record(model, IMAGES, recorder)
    recorder.release_tensors()
    gradient = weakref.ref(model[0].weight.grad)
    model.zero_grad()
    assert gradient() is None
    reference.train_step(model, IMAGES)  # not recorded, and .grad is not reset after it
    recorder.begin_batch()
    reference.train_step(model, IMAGES)
    again = recorder.end_batch()
    np.testing.assert_allclose(again.values[:2], expected.values[:2], rtol=1e-4)


def test_grad_scale_is_divided_out():
    model = small()
    plain, scaled = record(model, IMAGES), record(model, IMAGES, grad_scale=1024 / 3)
    np.testing.assert_allclose(scaled.values[0], plain.values[0] * 3 / 1024, rtol=1e-5)
    np.testing.assert_allclose(scaled.values[1], plain.values[1], rtol=1e-5)


def test_shared_conv_and_shared_relu():
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
        reference.mean_absolute_coefficient(model.conv.weight.grad, model.conv),
        rtol=1e-4,
    )
    first = model.conv(IMAGES).relu()
    second = model.conv(first).relu()
    np.testing.assert_allclose(
        of_layer(recording, "activation", "conv"),
        (reference.pixel_sum(first) + reference.pixel_sum(second)) / 2,
        rtol=1e-4,
    )


@pytest.mark.parametrize("in_place", [True, False])
def test_residual_sum_is_not_a_map(in_place):
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
    assert recorder.activation_sources == {"conv": ""}
    np.testing.assert_allclose(
        of_layer(recording, "activation", "conv"),
        reference.pixel_sum(model.conv(IMAGES).abs()),
        rtol=1e-4,
    )


def test_forwards_outside_a_batch_do_not_count():
    model = small()
    recorder = Recorder(model)
    expected = record(model, IMAGES, recorder)
    model(torch.randn(7, 3, 12, 12))
    model.zero_grad()
    again = record(model, IMAGES, recorder)
    np.testing.assert_allclose(again.values, expected.values, rtol=1e-4, equal_nan=True)


def our_hooks(model):
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


def test_detach_removes_everything_after_an_exception():
    model = small()
    names = set(vars(model[0]))
    recorder = Recorder(model)
    recorder.attach()
    recorder.begin_batch()
    with pytest.raises(RuntimeError):
        model(torch.zeros(1, 5, 12, 12))  # wrong number of channels
    recorder.detach()
    recorder.detach()
    assert our_hooks(model) == [{}, {}, [], [], []]
    assert set(vars(model[0])) == names
    assert recorder.end_batch() is None
    recorder.attach()
    recorder.attach()
    assert len(module_internals._global_forward_hooks) == 1
    record(model, IMAGES, recorder)
    recorder.detach()
    assert our_hooks(model) == [{}, {}, [], [], []]


@pytest.mark.parametrize(
    ("part", "method", "batches_before"),
    [
        (ActivationSums, "add", 0), (ActivationSums, "add_gradient", 0),
        (gradient_reader, "sum_gradients_if_complete", 0),
        (gradient_reader, "sum_gradients_if_complete", 2),
        (optimizer_hooks, "measure_updates", 0), (optimizer_hooks, "measure_updates", 2),
    ],
)  # fmt: skip
def test_an_error_in_a_hook_ends_the_recording_but_not_the_step(
    part, method, batches_before, monkeypatch
):
    def fails(*_: object) -> None:
        raise ZeroDivisionError("a bug of ours")

    model, plain = small(), small()
    recorder = Recorder(model, statistics=STATISTICS)
    for _ in range(batches_before):
        record(model, IMAGES, recorder)
    recorder.attach()
    recorder.begin_batch()
    with monkeypatch.context() as patch:
        patch.setattr(part, method, fails)
        for each in (model, plain):
            each.zero_grad()
            reference.train_step(each, IMAGES)
            torch.optim.SGD(each.parameters(), lr=0.1).step()
        with pytest.raises(ZeroDivisionError, match="a bug of ours"):
            recorder.end_batch()
    for parameter, expected in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(parameter, expected)
    recorder.detach()
    assert our_hooks(model) == [{}, {}, [], [], []]


@pytest.mark.parametrize("reductions", ["build_map_reductions", "build_gradient_reductions"])
def test_an_error_in_a_specialized_hook_ends_the_recording_but_not_the_step(
    reductions, monkeypatch
):
    def fails(*_: object) -> None:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(map_reducer, reductions, lambda *_, **__: (fails,))
    model, plain = small(), small()
    recorder = Recorder(model, statistics=STATISTICS)
    record(model, IMAGES, recorder)  # the hooks of the next batch are specialized
    recorder.begin_batch()
    for each in (model, plain):
        each.zero_grad()
        reference.train_step(each, IMAGES)
    with pytest.raises(ZeroDivisionError, match="a bug of ours"):
        recorder.end_batch()
    for parameter, expected in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(parameter.grad, expected.grad)
    recorder.detach()


@pytest.mark.parametrize("batches_before", [0, 2])
def test_copies_and_pickles_during_a_batch_contain_no_hooks(batches_before):
    model = small()
    recorder = Recorder(model)
    recorder.attach()
    for _ in range(batches_before):
        record(model, IMAGES, recorder)
    recorder.begin_batch()
    reference.train_step(model, IMAGES)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        hooks_of_twin = our_hooks(twin)
        assert hooks_of_twin[2:] == [[], [], []]
        assert b"revacnn" not in pickle.dumps(twin)
        assert {type(m._forward_hooks) for m in twin.modules()} == {OrderedDict}
    recorder.detach()
    assert {type(m._forward_hooks) for m in model.modules()} == {OrderedDict}


def test_foreign_hooks_coexist():
    """They are registered before, during and after the batches that rely on the discovery batch."""
    model = small()
    seen = []
    early = model[2].register_forward_hook(lambda *_: seen.append("early"))
    recorder = Recorder(model)
    expected = [record(model, IMAGES, recorder) for _ in range(2)][-1]
    early.remove()
    recorder.update_structure()
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


def test_update_structure_adopts_new_removed_and_resized_convs():
    model = small()
    recorder = Recorder(model)
    record(model, IMAGES, recorder)
    model[0] = nn.Conv2d(3, 2, 3)
    model[1] = nn.BatchNorm2d(2)
    model[3] = nn.Conv2d(2, 6, 3, groups=2)
    model.insert(0, nn.Conv2d(3, 3, 1))
    recorder.update_structure()
    recording = record(model, IMAGES, recorder)
    assert recording.layers == ["0", "1", "4", "6"]
    assert recording.widths == [3, 2, 6, 8]
    for name in recording.layers:
        conv = model[int(name)]
        np.testing.assert_allclose(
            of_layer(recording, "gradient", name),
            reference.mean_absolute_coefficient(conv.weight.grad, conv),
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
    assert np.isnan(of_layer(recording, "gradient", "first")).all()  # not computed
    assert (of_layer(recording, "gradient", "aside") == 0).all()
    assert (of_layer(recording, "activation", "aside") > 0).all()
    assert np.isnan(of_layer(recording, "activation", "never")).all()  # it was called dead
    assert np.isfinite(of_layer(recording, "weight_norm", "first")).all()
    assert not recording.nonfinite


def test_layers_are_in_forward_order():
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
        reference.mean_absolute_coefficient(model.b.weight.grad, model.b),
        rtol=1e-4,
    )


def test_infinite_gradient_sets_nonfinite():
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
