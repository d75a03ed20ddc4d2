"""An edit runs as few forwards as it can, and no fewer than it must."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from revacnn_lightning.errors import SteeringError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe
from tests.steering import nets


def count_forwards(model: nn.Module, request: requests.Edit) -> int:
    """Return how many forwards an edit runs, after a first trace, and check that it is exact."""
    editor, x = Editor(model), nets.images()
    count = 0

    def forward() -> object:
        nonlocal count
        count += 1
        return model(x)

    probe = ForwardProbe([forward])
    editor.channel_groups(probe)
    before, count = nets.output(model), 0
    editor.apply(request, probe)
    if isinstance(request, requests.AddFilters):
        assert torch.allclose(nets.output(model), before, atol=1e-9)
    return count


class Normalized(nn.Module):
    """Every conv has a norm, and there is dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nets.conv_bn(3, 6), nets.conv_bn(6, 8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout2d(self.b(self.a(x)), 0.5, self.training)
        return self.fc(F.dropout(x.mean((2, 3)), 0.5, self.training))


class ReadInEvaluation(nn.Module):
    """A tensor of its own kind is read in evaluation mode only."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 1)
        self.gains = nn.Buffer(torch.ones(6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(x if self.training else x * self.gains)


class TwoOutputs(Normalized):
    def forward(self, x: Tensor) -> object:
        output = super().forward(x)
        return (output, output) if self.training else output


class Dropping(Normalized):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.dropout(self.b(self.a(x)), 0.5).mean((2, 3)))


def test_the_traced_forward_verifies_a_removal():
    assert count_forwards(nets.build(Normalized), requests.RemoveFilters("a.0", [1])) == 3


def test_the_traced_forward_verifies_an_addition():
    assert count_forwards(nets.build(Normalized), requests.AddFilters("a.0")) == 2


def test_the_traced_forward_measures_the_strength_of_new_filters():
    """No norm follows this conv."""
    assert count_forwards(nets.build(nets.Plain), requests.AddFilters("conv2")) == 2


def test_the_traced_forward_verifies_new_values():
    assert count_forwards(nets.build(Normalized), requests.Reinitialize("a.0", [1])) == 3


def test_a_model_that_returns_something_else_in_training_is_evaluated():
    assert count_forwards(nets.build(TwoOutputs), requests.RemoveFilters("a.0", [1])) == 4
    assert count_forwards(nets.build(TwoOutputs), requests.AddFilters("a.0")) == 3


def test_a_model_that_drops_in_evaluation_is_evaluated():
    assert count_forwards(nets.build(Dropping), requests.RemoveFilters("a.0", [1])) == 4


@pytest.mark.parametrize(
    "request_", [requests.RemoveFilters("a", [1]), requests.AddFilters("a")], ids=["remove", "add"]
)
def test_what_only_an_evaluation_reads_is_verified(request_: requests.Edit):
    """Without an evaluation of the edited model, its next validation would raise."""
    model = nets.build(ReadInEvaluation)
    weights = nets.checksum(model)
    with pytest.raises(SteeringError):
        Editor(model).apply(request_, nets.probe_of(model))
    assert nets.checksum(model) == weights
