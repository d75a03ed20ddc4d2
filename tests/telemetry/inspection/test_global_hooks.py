"""Hooks for all modules do not see what the package runs, and are active again afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
    register_module_full_backward_hook,
)

from revacnn_lightning.telemetry.inspection.side_effects import side_effect_free


@pytest.fixture
def seen():
    names: list[str] = []
    handles = [
        register_module_forward_pre_hook(lambda module, args: names.append("pre")),
        register_module_forward_hook(lambda module, args, out: names.append("forward")),
        register_module_forward_hook(lambda *args: names.append("always"), always_call=True),
        register_module_full_backward_hook(lambda *args: names.append("backward")),
    ]
    yield names
    for handle in handles:
        handle.remove()


def test_hooks_for_all_modules_do_not_count_forwards_of_a_viewer(seen: list[str]):
    model, images = nn.Conv2d(1, 2, 3), torch.rand(1, 1, 5, 5, requires_grad=True)
    model(images).sum().backward()
    of_one_step = list(seen)
    with side_effect_free(model), torch.enable_grad():
        model(images).sum().backward()
    assert seen == of_one_step
    model(images).sum().backward()
    assert seen == of_one_step * 2


def test_hooks_are_active_again_after_an_exception(seen: list[str]):
    model = nn.Conv2d(1, 2, 3)
    with pytest.raises(ZeroDivisionError), side_effect_free(model):
        raise ZeroDivisionError
    model(torch.rand(1, 1, 5, 5))
    assert seen == ["pre", "forward", "always"]


def test_a_hook_registered_inside_runs_and_can_be_removed(seen: list[str]):
    inside: list[str] = []
    model = nn.Conv2d(1, 2, 3)
    with side_effect_free(model):
        handle = register_module_forward_hook(lambda *args: inside.append("inside"))
        model(torch.rand(1, 1, 5, 5))
        handle.remove()
    assert inside == ["inside"]
    assert seen == []
