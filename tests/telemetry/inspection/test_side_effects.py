"""A forward inside `side_effect_free` leaves the model and every random state unchanged."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from revacnn_lightning.telemetry.inspection.side_effects import (
    inside_side_effect_free,
    side_effect_free,
)


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
