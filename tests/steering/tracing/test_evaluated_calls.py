"""A forward in training mode is traced with the values of an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from revacnn_lightning.steering.tracing.forward_cache import EditForwardCache
from revacnn_lightning.steering.tracing.forward_probe import evaluate_first_forward
from revacnn_lightning.steering.tracing.traced_forwards import trace_and_evaluate
from tests.steering import nets


class Regularized(nn.Module):
    """conv, norm, ``regularize``, conv."""

    def __init__(self, regularize: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1)
        self.regularize = regularize
        self.depth = StochasticDepth(0.4, "row")

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.regularize(self, self.norm(self.a(x))))


REGULARIZATIONS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "none": lambda net, x: x,
    "dropout": lambda net, x: F.dropout(x, 0.3, net.training),
    "dropout in place": lambda net, x: F.dropout(x, 0.3, net.training, inplace=True),
    "dropout of filters": lambda net, x: F.dropout2d(x, 0.3, net.training),
    "stochastic depth": lambda net, x: x + net.depth(x.sin()),
}


def trained(regularize: Callable[[nn.Module, Tensor], Tensor]) -> nn.Module:
    """Return the network in training mode, with running statistics of its own."""
    torch.manual_seed(0)
    model = Regularized(regularize).double().train()
    model.norm.running_mean.normal_()
    model.norm.running_var.uniform_(0.5, 2)
    return model


@pytest.mark.parametrize("name", REGULARIZATIONS)
def test_a_traced_forward_returns_what_an_evaluation_does(name: str):
    model = trained(REGULARIZATIONS[name])
    probe = replace(nets.probe_of(model), shared=EditForwardCache())
    expected = evaluate_first_forward(model, probe)
    generator = torch.get_rng_state()
    groups, output = trace_and_evaluate(model, probe)
    assert torch.equal(output[0], expected[0])
    assert probe.shared.evaluated_signature == groups.call_signature
    assert torch.equal(torch.get_rng_state(), generator)
    model.eval()
    assert torch.equal(model(nets.images()), expected[0])


def test_new_filters_are_normalized_by_the_batch_and_others_as_in_evaluation():
    class Two(Regularized):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.norm(self.a(x))
            return x, self.b(x)

    torch.manual_seed(0)
    model = Two(REGULARIZATIONS["none"]).double().train()
    model.norm.running_mean[:4].normal_()
    with torch.no_grad():
        model.b.weight[:, 4:] = 0
    probe = replace(nets.probe_of(model), shared=EditForwardCache())
    expected = evaluate_first_forward(model, probe)
    _, traced = trace_and_evaluate(model, probe, [("a.weight", 0, 4), ("a.weight", 0, 5)])
    assert torch.equal(traced[0][:, :4], expected[0][:, :4])
    new, evaluated = (maps[:, 4:].transpose(0, 1).flatten(1) for maps in (traced[0], expected[0]))
    assert not torch.allclose(new, evaluated, atol=1e-2)
    assert torch.allclose(new.mean(1), torch.zeros(2).double(), atol=1e-6)
    assert torch.allclose(new.std(1, correction=0), torch.ones(2).double(), atol=1e-3)
    assert torch.allclose(traced[1], expected[1], atol=1e-12)


def test_a_frozen_norm_leaves_new_filters_as_training_does():
    model = trained(REGULARIZATIONS["none"])
    model.norm.eval()
    probe = replace(nets.probe_of(model), shared=EditForwardCache())
    expected = evaluate_first_forward(model, probe)
    _, output = trace_and_evaluate(model, probe, [("a.weight", 0, 5)])
    assert torch.equal(output[0], expected[0])
