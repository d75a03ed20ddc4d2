"""The receptive field, against the gradients of single units of a network with positive weights."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from revacnn_lightning.telemetry.inspection.autograd_graph import backward_path
from revacnn_lightning.telemetry.inspection.receptive_field import (
    PixelBox,
    ReceptiveFields,
    compute_receptive_fields,
)


class Residual(nn.Module):
    def __init__(self, channels: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.relu(self.conv1(x)))
        out += x
        return functional.relu(out)


class Branches(nn.Module):
    """Parallel branches as in Inception, concatenated: 1×1, dilated, pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(4, 2, 1)
        self.wide = nn.Conv2d(4, 2, (1, 5), padding=(0, 4), dilation=(1, 2))
        self.pool = nn.AvgPool2d(3, stride=1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        return torch.cat([self.one(x), self.wide(x), self.pool(first) * second], 1)


class Shuffled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)


class Sliced(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 1::2, 2:-1]


class Padded(nn.Module):
    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x, (3, 1, 2, 3), mode=self.mode)


def conv(channels: int, kernel: int = 3, out: int = 4, **options: object) -> nn.Conv2d:
    return nn.Conv2d(channels, out, kernel, **options)


NETS = {
    "strides": lambda: nn.Sequential(
        conv(3, 5, stride=2, padding=2), nn.ReLU(), conv(4, 3, stride=3), nn.ReLU(), conv(4, 2)
    ),
    "dilated": lambda: nn.Sequential(conv(3, 3, dilation=3), conv(4, (2, 3))),
    "units that see padding only": lambda: nn.Sequential(
        conv(3, 3, stride=2), conv(4, 3, padding=3), conv(4, 1)
    ),
    "same": lambda: nn.Sequential(conv(3, 5, padding="same"), conv(4, (3, 1), padding="same")),
    "pooled": lambda: nn.Sequential(
        conv(3), nn.MaxPool2d(3, 2, 1), conv(4), nn.AvgPool2d(2, ceil_mode=True), conv(4, 2)
    ),
    "adaptive": lambda: nn.Sequential(conv(3), nn.AdaptiveAvgPool2d((5, 3)), conv(4, 2)),
    "transposed": lambda: nn.Sequential(
        conv(3, 3, stride=2),
        nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1),
        conv(4, 3),
    ),
    "upsampled": lambda: nn.Sequential(conv(3, 3, stride=2), nn.Upsample(scale_factor=2), conv(4)),
    "residual": lambda: nn.Sequential(conv(3), Residual(4), nn.MaxPool2d(2), Residual(4, 5)),
    "branches": lambda: nn.Sequential(conv(3), nn.BatchNorm2d(4), Branches(), conv(6)),
    "shuffled": lambda: nn.Sequential(conv(3), Shuffled(), conv(4, groups=2)),
    "sliced": lambda: nn.Sequential(conv(3), Sliced(), conv(4)),
    "reflected": lambda: nn.Sequential(Padded("reflect"), conv(3, 2, stride=2)),
    "replicated": lambda: nn.Sequential(Padded("replicate"), conv(3, 2, stride=2)),
    "zeros": lambda: nn.Sequential(Padded("constant"), conv(3, 2, stride=2)),
    "pixel shuffle": lambda: nn.Sequential(conv(3, 3), nn.PixelShuffle(2), conv(1, 3)),
    "pixel unshuffle": lambda: nn.Sequential(nn.PixelUnshuffle(2), conv(12, 2)),
    "local response": lambda: nn.Sequential(conv(3), nn.ReLU(), nn.LocalResponseNorm(3), conv(4)),
}


def without_cancellation(network: nn.Module) -> nn.Module:
    """Return a copy in which every unit has a gradient at all pixels it depends on."""
    network = copy.deepcopy(network).double().eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                options = child.kernel_size, child.stride, child.padding, child.ceil_mode
                setattr(module, name, nn.AvgPool2d(*options))
            elif isinstance(child, nn.LocalResponseNorm):
                setattr(module, name, nn.Identity())
    return network


def reference_field(network: nn.Module, size: tuple[int, int]) -> ReceptiveFields:
    """Compute the field from the gradients of all rows and columns of units."""
    image = torch.rand(1, 3, *size, dtype=torch.float64) + 0.5
    image.requires_grad_()
    total = without_cancellation(network)(image).sum(1)[0]  # (H, W)

    def ends(unit: Tensor, axis: int) -> list[int]:
        [gradient] = torch.autograd.grad(unit, image, retain_graph=True)
        seen = gradient[0].abs().sum((0, 2 - axis)).nonzero()
        return [int(seen.min()), int(seen.max())] if len(seen) else [0, size[axis] - 1]

    height, width = total.shape
    rows = [ends(total[y].sum(), 0) for y in range(height)]
    columns = [ends(total[:, x].sum(), 1) for x in range(width)]
    return ReceptiveFields(np.array(rows), np.array(columns))


def field_of(network: nn.Module, size: tuple[int, int]) -> ReceptiveFields:
    image = torch.randn(1, 3, *size, requires_grad=True)
    return compute_receptive_fields(network.eval()(image), image)


def assert_same(network: nn.Module, size: tuple[int, int]) -> None:
    actual, expected = field_of(network, size), reference_field(network, size)
    np.testing.assert_array_equal(actual.rows, expected.rows)
    np.testing.assert_array_equal(actual.columns, expected.columns)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("size", [(20, 20), (24, 18)])
def test_matches_gradients(name: str, size: tuple[int, int]):
    assert_same(NETS[name](), size)


@pytest.mark.parametrize(
    ("make", "children"),
    [
        (lambda: torchvision.models.resnet18(), 7),
        (lambda: torchvision.models.densenet121().features, 6),
        (lambda: torchvision.models.shufflenet_v2_x0_5(), 4),
        (lambda: torchvision.models.mobilenet_v2().features, 9),
        (lambda: torchvision.models.vgg11().features, 12),
        (lambda: torchvision.models.squeezenet1_1().features, 8),
    ],
    ids=["resnet18", "densenet121", "shufflenet", "mobilenet_v2", "vgg11", "squeezenet"],
)
def test_torchvision_networks(make, children: int):
    network = nn.Sequential(*list(make().children())[:children])
    assert_same(network, (96, 80))


def test_dilated_kernel_over_a_border_is_overestimated():
    network = nn.Sequential(conv(3, 3, dilation=3, padding=2), conv(4, 2))
    actual, expected = field_of(network, (20, 16)), reference_field(network, (20, 16))
    for found, correct in [(actual.rows, expected.rows), (actual.columns, expected.columns)]:
        assert (found[:, 0] <= correct[:, 0]).all()
        assert (found[:, 1] >= correct[:, 1]).all()
        assert np.abs(found - correct).max() <= 2  # dilation - 1


def test_box_is_clipped_to_the_image():
    field = field_of(conv(3, 5, padding=2, stride=2), (11, 11))
    assert field.box(0, 0) == PixelBox(0, 0, 3, 3)
    assert field.box(2, 2) == PixelBox(2, 2, 7, 7)
    assert field.box(5, 5) == PixelBox(8, 8, 11, 11)
    assert field.max_size == (5, 5)


def test_global_gate_is_ignored():
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.gate = conv(3), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return x * torch.sigmoid(self.gate(functional.adaptive_avg_pool2d(x, 1)))

    assert field_of(Gated(), (12, 12)).max_size == (3, 3)


def test_unknown_operation_depends_on_everything():
    class Unknown(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.roll(2, 3)

    assert field_of(nn.Sequential(conv(3), Unknown(), conv(4)), (12, 14)).box(0, 0) == PixelBox(
        0, 0, 12, 14
    )


@pytest.mark.parametrize("channels", [10, 100])
def test_flattened_map_depends_on_everything(channels: int):
    class Flattened(nn.Module):
        def forward(self, x: Tensor) -> Tensor:  # (1, channels, 10, 10)
            rows = x.flatten(2).view(1, 1, x.shape[1], 100)
            return rows[:, :, :10, :10]

    network = nn.Sequential(conv(3, 3, out=channels), Flattened(), conv(1, 3))
    assert field_of(network, (12, 12)).box(0, 0) == PixelBox(0, 0, 12, 12)


def test_without_backward_path_it_is_the_whole_image():
    image = torch.randn(1, 3, 9, 9, requires_grad=True)
    maps = conv(3)(image.detach())
    assert backward_path(maps, image) == []
    assert compute_receptive_fields(maps, image).box(0, 0) == PixelBox(0, 0, 9, 9)
