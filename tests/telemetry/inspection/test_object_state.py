"""A captured state that is refreshed is the state of now, as if it was captured again."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn

from revacnn_lightning.telemetry.inspection.object_state import ObjectState


def edited_model() -> tuple[nn.Sequential, ObjectState]:
    """Return a model and its state, after a change of everything that a forward may change."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model.seen, model.kept = [], {"a": 1}
    model.generator, model.array = random.Random(0), np.zeros(2)
    state = ObjectState(model)
    state.restore()
    model[0].out_channels = 5
    model.seen.append([1])
    model.kept["b"] = [2]
    model.generator.random()
    model.array += 1
    model.add_module("2", nn.Conv2d(4, 2, 1))
    model[1].register_forward_hook(lambda *_: None)
    return model, state


def test_changes_between_two_forwards_are_adopted() -> None:
    model, state = edited_model()
    generator = model.generator.getstate()
    state.refresh()
    state.restore()
    assert model[0].out_channels == 5
    assert model.seen == [[1]]
    assert model.kept == {"a": 1, "b": [2]}
    assert model.generator.getstate() == generator
    assert model.array.tolist() == [1, 1]
    assert len(model) == 3
    assert len(model[1]._forward_hooks) == 1


def test_changes_after_a_refresh_are_restored() -> None:
    model, state = edited_model()
    state.refresh()
    assert model[2] in state.modules
    assert any(tensor is model[2].weight for tensor in state.tensors)
    model[2].out_channels = 7
    model.seen[0].append(2)
    model.kept["b"].clear()
    model.array += 1
    model[1]._forward_hooks.clear()
    del model[2].bias
    state.restore()
    assert model[2].out_channels == 2
    assert isinstance(model[2].bias, torch.Tensor)
    assert model.seen == [[1]]
    assert model.kept == {"a": 1, "b": [2]}
    assert model.array.tolist() == [1, 1]
    assert len(model[1]._forward_hooks) == 1


def test_a_container_that_was_filled_and_emptied_again_is_restored() -> None:
    model = nn.Identity()
    model.cache = []
    state = ObjectState(model)
    model.cache.append(1)
    state.refresh()
    model.cache.clear()
    state.refresh()
    model.cache.append(2)
    state.restore()
    assert model.cache == []
