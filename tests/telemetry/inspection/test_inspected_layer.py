from __future__ import annotations

import torch
from torch import nn

from revacnn_lightning.telemetry.inspection.inspected_layer import InspectedLayer
from revacnn_lightning.telemetry.recording.weight_sums import WeightSums


def run_backward(conv: nn.Conv2d) -> torch.Tensor:
    """Add a new gradient to ``conv.weight.grad``; return a copy of the new one."""
    images = torch.randn(2, 3, 6, 6)
    conv(images).square().sum().backward()
    copied = nn.Conv2d(3, 4, 3)
    copied.load_state_dict(conv.state_dict())
    copied(images).square().sum().backward()
    return copied.weight.grad


def test_smoothing_that_starts_in_a_pause_leaves_the_accumulated_gradient_alone():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3)
    weights, layer = WeightSums(conv), InspectedLayer(smoothed=True)
    expected = run_backward(conv)
    layer.read_last_gradient(weights)
    for _ in range(3):
        layer.begin_batch(weights, 0.0)
        expected = expected + run_backward(conv)
        layer.end_batch(weights)
    assert torch.equal(conv.weight.grad, expected)


def test_average_does_not_change_with_the_gradient_it_started_from():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3)
    weights, layer = WeightSums(conv), InspectedLayer(smoothed=True)
    first = run_backward(conv)
    layer.read_last_gradient(weights)
    run_backward(conv)
    assert torch.equal(layer.smoothed_gradient, first.flatten(1))
