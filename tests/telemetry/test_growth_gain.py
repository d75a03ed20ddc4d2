"""The growth gain against the obvious computation: M, from the gradients of real new filters."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from revacnn_lightning.telemetry.growth_gain import (
    LayerPairTensors,
    _maps,
    find_best_new_filters,
    why_no_gain,
)
from revacnn_lightning.telemetry.unit_layers import filter_count, is_transposed

IMAGES = torch.randn(5, 2, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
CLASSES = torch.arange(5) % 3


def networks() -> dict[str, tuple[nn.Sequential, int, int]]:
    """Return networks, with the places of a layer and of its reader."""
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, 3, padding=1, stride=2)
    up = {"stride": 2, "padding": 1, "output_padding": 1}
    return {
        "transposed to conv": (
            nn.Sequential(nn.ConvTranspose2d(2, 3, 3, **up), nn.Conv2d(3, 2, 3, stride=4),
                          nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)), 0, 1,
        ),
        "conv to transposed": (
            nn.Sequential(nn.Conv2d(2, 3, 3, stride=3), nn.ConvTranspose2d(3, 4, 2, **up),
                          nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)), 0, 1,
        ),
        "transposed to transposed": (
            nn.Sequential(nn.MaxPool2d(4), nn.ConvTranspose2d(2, 3, (3, 2), dilation=2),
                          nn.ConvTranspose2d(3, 2, 2), nn.ReLU(), nn.Flatten(),
                          nn.Linear(70, 3)), 1, 2,
        ),
        "conv to conv": (
            nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(),
                          nn.Flatten(), nn.Linear(144, 3)), 0, 1,
        ),
        "through pooling": (
            nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.AvgPool2d(2), nn.Conv2d(3, 4, 3),
                          nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)), 0, 2,
        ),
        "conv to linear": (nn.Sequential(conv, nn.Flatten(), nn.Linear(48, 3)), 0, 2),
        "conv, mean, linear": (
            nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3)), 0, 3,
        ),
        "linear to linear": (
            nn.Sequential(nn.Flatten(), nn.Linear(128, 6), nn.Linear(6, 3)), 1, 2,
        ),
    }  # fmt: skip


def run(network: nn.Sequential, first: int, last: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the loss, and the inputs of all modules with the output of the last one."""
    x, inputs = IMAGES, [IMAGES]
    for module in network:
        x = module(x)
        inputs.append(x)
    return F.cross_entropy(x, CLASSES), inputs


def gradient_matrix(network: nn.Sequential, layer: int, reader: int) -> torch.Tensor:
    """Return M, one column per coefficient of a filter, by adding such a filter to the network."""
    weight = network[layer].weight
    columns, length = [], weight.numel() // filter_count(network[layer])
    for coefficient in range(length):
        w = torch.zeros(length, dtype=torch.float64)
        w[coefficient] = 1
        columns.append(outgoing_gradient_of(network, layer, reader, w))
    return torch.stack(columns, 1)


def outgoing_gradient_of(
    network: nn.Sequential, layer: int, reader: int, w: torch.Tensor
) -> torch.Tensor:
    """Return ∂L/∂v of a new filter with coefficients w, whose outgoing weights v are zero."""
    weight, rows = network[layer].weight, network[reader].weight
    # A transposed layer has its filters along the second dimension, and what it reads along the
    # first.
    axis = int(is_transposed(network[layer]))
    shape = list(weight.shape)
    shape[axis] = 1
    wider = torch.cat([weight, w.reshape(shape)], axis).detach()
    x, axis = IMAGES, 1 - int(is_transposed(network[reader]))
    shape = list(rows.shape)
    shape[axis] //= filter_count(network[layer])
    v = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    read = torch.cat([rows.detach(), v], axis)
    for index, module in enumerate(network):
        if index in (layer, reader):
            new = {layer: wider, reader: read}[index]
            bias = module.bias.detach()
            bias = torch.cat([bias, bias.new_zeros(1)]) if index == layer else bias
            if isinstance(module, nn.Linear):
                x = F.linear(x, new, bias)
            elif is_transposed(module):
                sizes = (module.stride, module.padding, module.output_padding)
                x = F.conv_transpose2d(x, new, bias, *sizes, dilation=module.dilation)
            else:
                x = F.conv2d(x, new, bias, module.stride, module.padding)
        else:
            x = module(x)
    return torch.autograd.grad(F.cross_entropy(x, CLASSES), v)[0].flatten()


@pytest.mark.parametrize("name", list(networks()))
def test_the_gain_is_the_largest_singular_value_of_real_gradients(name: str) -> None:
    network, layer, reader = networks()[name]
    network = network.double()
    matrix = gradient_matrix(network, layer, reader)
    loss, inputs = run(network, layer, reader)
    (gradient,) = torch.autograd.grad(loss, inputs[reader + 1])
    size = () if isinstance(network[reader], nn.Linear) else tuple(inputs[reader].shape[2:])
    tensors = LayerPairTensors(inputs[layer].detach(), network[reader], size, gradient)
    values, directions = find_best_new_filters(network[layer], [tensors])
    expected = torch.linalg.svdvals(matrix)
    assert values[0] == pytest.approx(float(expected[0]), rel=1e-6)
    assert float((matrix @ directions[0].flatten()).norm()) == pytest.approx(
        float(expected[0]), rel=1e-6
    )
    assert directions.flatten(1).norm(dim=1).allclose(torch.ones(len(values)).double())


def test_several_groups_of_images_add_up() -> None:
    network, layer, reader = networks()["conv to conv"]
    network = network.double()
    loss, inputs = run(network, layer, reader)
    (gradient,) = torch.autograd.grad(loss, inputs[reader + 1])
    parts = [
        LayerPairTensors(inputs[layer][rows].detach(), network[reader], (6, 6), gradient[rows])
        for rows in (slice(0, 2), slice(2, 5))
    ]
    values, _ = find_best_new_filters(network[layer], parts)
    expected = torch.linalg.svdvals(gradient_matrix(network, layer, reader))
    assert values[0] == pytest.approx(float(expected[0]), rel=1e-6)


def test_layers_in_groups_are_refused_by_name() -> None:
    conv, depthwise = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, groups=4)
    assert "a depthwise layer reads it" in why_no_gain(conv, depthwise)
    assert "in each group" in why_no_gain(depthwise, conv)
    assert "reads it, which grows" in why_no_gain(conv, nn.Conv2d(4, 4, 3, groups=2))
    assert why_no_gain(nn.ConvTranspose2d(2, 4, 3), conv) == ""
    assert why_no_gain(conv, nn.Linear(4, 2)) == ""


@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect"])
@pytest.mark.parametrize("padding", ["same", "valid", (2, 1)])
def test_maps_are_padded_as_the_layer_pads(mode: str, padding: str | tuple[int, int]) -> None:
    layer = nn.Conv2d(2, 3, (4, 3), padding=padding, padding_mode=mode, bias=False, dilation=(2, 1))
    inputs = torch.randn(2, 2, 9, 8)
    torch.testing.assert_close(_maps(layer, inputs, layer.weight), layer(inputs))
