"""A forward inside `side_effect_free` leaves the model and every random state unchanged."""

from __future__ import annotations

import random
from collections import deque

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from revacnn_lightning.telemetry.inspection import tensor_state
from revacnn_lightning.telemetry.inspection.side_effects import (
    dataset_state_restored,
    inside_side_effect_free,
    random_states_restored,
    seed_torch_random_states,
    side_effect_free,
)


@pytest.fixture(autouse=True, params=["copied", "observed"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Restore a model as a small one, whose tensors are copied first, and as a large one."""
    if request.param == "observed":
        monkeypatch.setattr(tensor_state, "COPIED_WHOLE", -1)
    return str(request.param)


def model_in_mixed_modes() -> nn.Sequential:
    """Return a training model whose batch norm is in evaluation mode."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    model[1].eval()
    return model


def images() -> torch.Tensor:
    return torch.rand(2, 3, 8, 8)


def test_buffers_are_restored() -> None:
    model = model_in_mixed_modes()
    norm = model[1]
    buffers = dict(norm.named_buffers())
    values = {name: buffer.clone() for name, buffer in buffers.items()}
    with side_effect_free(model, training=True):
        model(images())
        assert not torch.equal(norm.running_mean, values["running_mean"])
        norm.running_var = torch.zeros(4)
    for name, buffer in norm.named_buffers():
        assert buffer is buffers[name]
        assert torch.equal(buffer, values[name])


def test_weights_written_in_place_are_restored_also_through_views(way: str) -> None:
    model = model_in_mixed_modes()
    whole = torch.rand(8)
    model.register_buffer("part", whole[2:5])
    weight, part = model[0].weight.clone(), whole.clone()
    with side_effect_free(model) as tensors:
        assert tensors.are_all_copied == (way == "copied")
        model[0].weight.mul_(2)
        model.get_buffer("part").fill_(-1)
        whole.add_(1)
    assert torch.equal(model[0].weight, weight)
    assert torch.equal(whole, part)


def test_restoring_buffers_is_invisible_to_autograd() -> None:
    model = model_in_mixed_modes()
    version = model[1].running_mean._version
    with side_effect_free(model, training=False):
        model(images())
    assert model[1].running_mean._version == version


def test_buffers_assigned_in_inference_mode_are_restored() -> None:
    model = model_in_mixed_modes()
    with torch.inference_mode():
        model[1].running_mean = torch.ones(4)
    with side_effect_free(model, training=True):
        model[1].running_mean = torch.zeros(4)
    assert torch.equal(model[1].running_mean, torch.ones(4))


@pytest.mark.parametrize("training", [True, False, None])
def test_modes_are_set_inside_and_restored(training: bool | None) -> None:
    model = model_in_mixed_modes()
    before = [module.training for module in model.modules()]
    with side_effect_free(model, training):
        inside = [module.training for module in model.modules()]
        model.eval()
    assert inside == (before if training is None else [training] * 4)
    assert [module.training for module in model.modules()] == before


def test_gradients_are_disabled_inside_and_grad_is_restored() -> None:
    model = model_in_mixed_modes()
    model(images()).sum().backward()
    conv = model[0]
    gradient = conv.weight.grad
    conv.bias.grad = None
    with side_effect_free(model):
        assert not model(images()).requires_grad
        model.zero_grad()
        with torch.enable_grad():
            model(images()).sum().backward()
        assert conv.bias.grad is not None
    assert conv.weight.grad is gradient
    assert conv.bias.grad is None
    assert torch.is_grad_enabled()


def test_random_states_of_torch_numpy_and_python_are_restored() -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    with side_effect_free(nn.Identity()):
        torch.rand(3)
        np.random.rand(3)
        random.random()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_random_state_of_the_models_cuda_device_is_restored() -> None:
    model = model_in_mixed_modes().cuda()
    state = torch.cuda.get_rng_state()
    with side_effect_free(model):
        torch.rand(3, device="cuda")
    assert torch.equal(torch.cuda.get_rng_state(), state)


def test_seeding_gives_the_numbers_of_a_manual_seed() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    with random_states_restored():
        seed_torch_random_states(7)
        assert torch.equal(torch.rand(3), expected)


def test_everything_is_restored_after_an_exception() -> None:
    model = model_in_mixed_modes()
    mean, state = model[1].running_mean.clone(), torch.get_rng_state()

    def fail() -> None:
        with side_effect_free(model, training=True):
            model(torch.rand(2, 3, 8, 8))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.equal(model[1].running_mean, mean)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model[1].training
    assert not inside_side_effect_free()


SEEN: list[bool] = []  # a list in the closure of a hook would be restored


def test_hooks_can_recognize_a_side_effect_free_forward() -> None:
    SEEN.clear()
    model = model_in_mixed_modes()
    model[0].register_forward_hook(lambda *_: SEEN.append(inside_side_effect_free()))
    model(images())
    with side_effect_free(model):
        model(images())
    assert SEEN == [False, True]


def test_containers_objects_and_generators_of_modules_are_restored() -> None:
    class Meter:
        def __init__(self) -> None:
            self.values: list[int] = [1]

    class Effects(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count, self.empty, self.nested = 0, [], {"a": [1, {2}]}
            self.recent: deque[int] = deque([1], maxlen=1)
            self.meter, self.hidden = Meter(), [nn.BatchNorm1d(2)]
            self.kept, self.array = torch.zeros(2), np.zeros(2)
            self.numpy, self.python = np.random.default_rng(0), random.Random(0)
            self.torch = torch.Generator().manual_seed(0)
            self.weight = nn.Parameter(torch.ones(2))

        def forward(self) -> None:
            self.count, self.new = 1, 1
            self.empty.append(1)
            self.nested["a"][1].add(3)
            self.nested["b"] = 1
            self.recent.append(2)
            self.meter.values.append(2)
            self.hidden[0](torch.ones(2, 2))
            self.kept.add_(1)
            self.array += 1
            self.numpy.random(), self.python.random(), torch.rand(1, generator=self.torch)
            self.weight.mul_(2)
            self.weight.data = torch.zeros(2)
            self.weight.requires_grad_(False)
            self.register_buffer("late", torch.ones(1))
            self.register_forward_hook(lambda *_: None)

    model = Effects()
    weight, nested = model.weight, model.nested
    states = model.numpy.bit_generator.state, model.python.getstate(), model.torch.get_state()
    with side_effect_free(model):
        model()
    assert (model.count, model.empty, model.nested) == (0, [], {"a": [1, {2}]})
    assert model.nested is nested
    assert (list(model.recent), model.meter.values) == ([1], [1])
    assert int(model.hidden[0].num_batches_tracked) == 0
    assert not model.kept.any()
    assert not model.array.any()
    assert model.numpy.bit_generator.state == states[0]
    assert model.python.getstate() == states[1]
    assert torch.equal(model.torch.get_state(), states[2])
    assert model.weight is weight
    assert torch.equal(weight, torch.ones(2))
    assert weight.requires_grad
    assert not hasattr(model, "late")
    assert not hasattr(model, "new")
    assert not model._forward_hooks


def test_gradients_are_not_added_to_by_a_backward_pass_inside() -> None:
    model = nn.Linear(2, 1)
    model(torch.ones(1, 2)).sum().backward()
    gradient = model.weight.grad.clone()
    with side_effect_free(model), torch.enable_grad():
        model(torch.ones(1, 2)).sum().backward()
    assert torch.equal(model.weight.grad, gradient)


def test_a_long_list_is_cut_to_the_length_it_had() -> None:
    model = nn.Identity()
    model.history = list(range(150_000))
    with side_effect_free(model):
        model.history.append(1)
    assert len(model.history) == 150_000


def test_variables_of_hooks_are_restored() -> None:
    model, seen = nn.Identity(), []
    model.register_forward_hook(lambda module, args, output: seen.append(output))
    with side_effect_free(model):
        model(torch.ones(1))
    assert seen == []


class SeesOperations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen += 1
        return function(*args, **(kwargs or {}))


class SeesFunctions(TorchFunctionMode):
    def __init__(self) -> None:
        self.seen = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.seen += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("make_mode", [SeesOperations, SeesFunctions])
def test_a_mode_of_the_user_does_not_see_what_runs_inside(make_mode: type) -> None:
    model, inputs = model_in_mixed_modes(), images()
    with make_mode() as mode:
        with side_effect_free(model, training=True), torch.enable_grad():
            model(inputs).sum().backward()
        assert mode.seen == 0
        torch.relu(inputs)
        assert mode.seen == 1


def test_a_mode_that_is_entered_inside_sees_operations_also_in_a_nested_block() -> None:
    model, inputs = model_in_mixed_modes(), images()
    with SeesOperations() as outer, side_effect_free(model), SeesOperations() as inner:
        with side_effect_free(model):
            torch.relu(inputs)
        assert inner.seen > 0
    assert outer.seen == 0


def test_loading_a_sample_leaves_the_dataset_as_it_was() -> None:
    class Images(torch.utils.data.Dataset):
        def __init__(self) -> None:
            self.generator, self.file, self.cache = np.random.default_rng(0), None, {}

        def __getitem__(self, index: int) -> float:
            self.file = object()
            self.cache[index] = 1
            return self.generator.random() + np.random.rand() + random.random()

        def __len__(self) -> int:
            return 2

    images = Images()
    dataset = torch.utils.data.Subset(images, [0, 1])
    state = np.random.get_state()[1].copy()
    with dataset_state_restored(dataset, torch.device("cpu")):
        dataset[1]
    assert images.file is None
    assert images.cache == {}
    assert images.generator.random() == np.random.default_rng(0).random()
    assert np.array_equal(np.random.get_state()[1], state)
