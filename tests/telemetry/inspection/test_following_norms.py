"""Which norms follow a layer is what a trace finds, without a forward of its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from revacnn_lightning.steering import ForwardProbe
from revacnn_lightning.steering.tracing.traced_forwards import trace_channel_groups
from revacnn_lightning.telemetry.inspection.following_norms import (
    SingleLayerBatchNorms,
    observe_single_layer_batch_norms,
)


class Joined(nn.Module):
    """Two branches: a norm behind a ReLU, one behind their sum, and one that both share."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.norm_a, self.of_sum, self.shared = (nn.BatchNorm2d(4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.norm_a(torch.relu(self.a(x))), self.b(x)
        return self.of_sum(a + b) + self.shared(a.clone()) + self.shared(b)


def observe(model: nn.Module) -> SingleLayerBatchNorms:
    found: list[SingleLayerBatchNorms] = []
    with observe_single_layer_batch_norms(model, found.append):
        model(torch.randn(2, 3, 8, 8)).sum().backward()
    return found[0]


@pytest.fixture(
    params=[
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.GELU(), nn.BatchNorm2d(4)),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)),
    ],
    ids=["direct", "behind others", "of the last"],
)
def model(request: pytest.FixtureRequest) -> nn.Module:
    made: nn.Module = request.param()
    return made


def test_norms_are_those_of_a_trace(model: nn.Module):
    probe = ForwardProbe([lambda: model(torch.randn(2, 3, 8, 8))])
    assert observe(model).of_layer == trace_channel_groups(model, probe).norm_after != {}
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())


def test_norms_of_several_layers_belong_to_none():
    assert observe(Joined()).of_layer == {"a": {"norm_a"}}


def test_an_error_in_a_hook_does_not_reach_the_training(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "revacnn_lightning.telemetry.inspection.following_norms.KEEPING_CHANNELS", None
    )
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4))
    assert observe(net).failure.startswith("internal error (TypeError")
