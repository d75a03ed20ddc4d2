"""The fast walks of a network return what torch's own generators yield."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models import googlenet

from revacnn_lightning.telemetry.module_tree import (
    list_named_modules,
    list_named_parameters,
    list_named_tensors,
)


def shared_parts() -> nn.Module:
    """Return a network with a shared module, a shared parameter, and missing parts."""
    conv = nn.Conv2d(3, 3, 3)
    model = nn.ModuleDict({"a": nn.Sequential(conv, nn.ReLU()), "b": conv, "c": nn.Conv2d(3, 3, 3)})
    model["c"].bias = conv.bias
    model.register_module("missing", None)
    model.register_parameter("none", None)
    model.register_buffer("scale", torch.ones(()))
    return model


def test_modules_and_tensors_are_those_of_torch() -> None:
    for model in (shared_parts(), googlenet(init_weights=False), nn.ReLU()):
        assert list_named_modules(model) == list(model.named_modules())
        parameters = [*model.named_parameters()]
        tensors = [*parameters, *model.named_buffers()]
        for found, expected in (
            (list_named_parameters(model), parameters),
            (list_named_tensors(model), tensors),
        ):
            assert [name for name, _ in found] == [name for name, _ in expected]
            assert all(a is b for (_, a), (_, b) in zip(found, expected, strict=True))
