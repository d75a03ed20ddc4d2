"""Forwards of the same code have the same signature, and those of other code have not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from revacnn_lightning.protocol import requests
from revacnn_lightning.steering.tracing.forward_cache import EditForwardCache
from revacnn_lightning.steering.tracing.forward_probe import evaluate_first_forward
from revacnn_lightning.steering.tracing.traced_forwards import trace_channel_groups
from tests.steering import nets


class Moded(nn.Module):
    """A conv, then what ``middle`` does, which depends on the mode."""

    def __init__(self, middle: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 1)
        self.gain, self.average = nn.Parameter(torch.ones(1)), nn.Buffer(torch.ones(1))
        self.counter = nn.Buffer(torch.zeros((), dtype=torch.long))
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.middle(self, F.relu(self.a(x))))


def counted(net: nn.Module, x: Tensor) -> Tensor:
    if net.training:
        net.counter.add_(1)
    return x


def are_equal(middle: Callable[[nn.Module, Tensor], Tensor]) -> bool:
    """Return whether a forward in training mode and an evaluation have the same signature."""
    torch.manual_seed(0)
    model = Moded(middle).double().train()
    probe = replace(nets.probe_of(model), shared=EditForwardCache())
    evaluate_first_forward(model, probe)
    return trace_channel_groups(model, probe).call_signature == probe.shared.evaluated_signature


SAME = {
    "nothing": lambda net, x: x,
    "a counter": counted,
    "dropout": lambda net, x: F.dropout(x, 0.5, net.training),
}
OTHER = {
    "an operation in evaluation": lambda net, x: x if net.training else x * 1,
    "an operation in training": lambda net, x: x + 0 if net.training else x,
    "another tensor": lambda net, x: x * (net.gain if net.training else net.average),
    "noise": lambda net, x: x + torch.randn_like(x) if net.training else x,
    "a use of a mask": lambda net, x: (
        x * 1 if net.training and torch.empty_like(x).bernoulli_(0.5).any() else x
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_code_has_the_same_signature(name: str):
    assert are_equal(SAME[name])


@pytest.mark.parametrize("name", OTHER)
def test_other_code_has_another_signature(name: str):
    assert not are_equal(OTHER[name])


def test_a_resized_layer_keeps_the_signature():
    model, editor, probe = nets.editor_of(nets.Residual)
    before = trace_channel_groups(model, probe).call_signature
    editor.apply(requests.AddFilters("a.0.0"), probe)
    assert trace_channel_groups(model, probe).call_signature == before


def test_a_compiled_evaluation_has_no_signature():
    """No mode observes its operations."""
    model = Moded(SAME["nothing"]).double()
    probe = replace(nets.probe_of(model), shared=EditForwardCache())
    evaluate_first_forward(model, probe)
    assert probe.shared.evaluated_signature is not None
    model.b = torch.compile(model.b)
    evaluate_first_forward(model, probe)
    assert probe.shared.evaluated_signature is None
