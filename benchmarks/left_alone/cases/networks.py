"""Architectures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.left_alone.cases.small import add_networks


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.a = nn.Sequential(
            nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True),
            nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6),
        )  # fmt: skip
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu_(self.a(x) + x)
        return self.head(x.mean((2, 3)))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 4, 3, padding=1)
        self.deep = nn.Conv2d(4, 6, 3, padding=1)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.last = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.down(x))
        x = self.up(F.relu(self.deep(F.max_pool2d(skip, 2))))
        return self.last(torch.cat([skip, x], 1)).mean((2, 3))


class DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(1 + 3 * i, 3, 3, padding=1) for i in range(3))
        self.head = nn.Conv2d(10, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(F.relu(layer(torch.cat(features, 1))))
        return self.head(torch.cat(features, 1)).mean((2, 3))


class SeparableNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.Hardswish(inplace=True),
            nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.BatchNorm2d(4), nn.ReLU6(inplace=True),
            nn.Conv2d(4, 6, 1),
        )  # fmt: skip
        self.squeeze, self.excite, self.head = (
            nn.Conv2d(6, 2, 1),
            nn.Conv2d(2, 6, 1),
            nn.Linear(6, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.net(x)
        gate = self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))).sigmoid()
        return self.head((x * gate).mean((2, 3)))


class SharedWeights(nn.Module):
    """One layer used twice, and one more with the weights of another."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.twice = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.tied = nn.Conv2d(4, 4, 3, padding=1)
        self.tied.weight = self.twice.weight
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.twice(F.relu(self.twice(self.stem(x)))))
        return self.head(self.tied(x).mean((2, 3)))


class ConvRecurrent(nn.Module):
    """A recurrent layer reads the columns of the features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.rnn = nn.GRU(4 * 8, 6, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x)).permute(0, 3, 1, 2).flatten(2)
        return self.head(self.rnn(x)[0][:, -1])


class ConvAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 2, stride=2)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


class ChoosesBranch(nn.Module):
    """Takes one of two branches, and one of its branches has no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3)
        self.frozen, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.a if self.training and torch.rand(()) < 0.5 else self.b
        with torch.no_grad():
            extra = self.frozen(x)
        return self.head((F.relu(branch(x)) + extra).mean((2, 3)))


class ComplexNumbers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4 * 40, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.fft.rfft2(self.conv(x)).abs().flatten(1))


class DropsLayersAtRandom(nn.Module):
    """Random layers, and an activation in place on a view."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.RReLU(inplace=True), nn.Dropout2d(0.3),
            nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4), nn.PReLU(4), nn.FeatureAlphaDropout(0.2),
        )  # fmt: skip
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.net(x)
        x[:, :, :1].mul_(0.5)
        return self.head(x.amax((2, 3)))


class LazyModules(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)
        )
        self.net(torch.zeros(2, 1, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TanhConv3d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Unflatten(1, (1, 1)), nn.Conv3d(1, 4, (1, 3, 3)), nn.Tanh(), nn.Flatten(),
            nn.Linear(144, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class SignalNet1d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(2), nn.Conv1d(1, 4, 5), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(240, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x))


class Mixed1dAnd2d(nn.Module):
    """One-dimensional and two-dimensional convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv1d(4, 5, 3)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.b(F.relu(self.a(x)).flatten(2))).mean(2))


class SingleFilterLayers(nn.Module):
    """Layers of one filter, and a sum of two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 4, 1)
        self.one, self.again = nn.Conv2d(4, 1, 3), nn.Conv2d(1, 1, 1)
        self.head = nn.Linear(36, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.again(self.one((self.a(x) + self.b(x)).relu())).flatten(1))


def _linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))


NETWORKS: dict[str, Any] = {
    "resnet": (Residual, {"quick": True}),
    "u_net": (UNet, {}),
    "dense_net": (DenseNet, {}),
    "separable": (SeparableNet, {}),
    "shared_layers": (SharedWeights, {"steerable": False}),
    "recurrent": (ConvRecurrent, {}),
    "attention": (ConvAttention, {}),
    "branches": (ChoosesBranch, {}),
    "complex_values": (ComplexNumbers, {}),
    "dropout": (DropsLayersAtRandom, {}),
    "lazy_modules": (LazyModules, {}),
    "narrow_layers": (SingleFilterLayers, {}),
    "conv1d_after_conv2d": (Mixed1dAnd2d, {}),
    "conv3d_only": (TanhConv3d, {"observable": False, "steerable": False, "quick": True}),
    "conv1d_only": (SignalNet1d, {"observable": False, "steerable": False}),
    "no_convolution": (_linear, {"observable": False, "steerable": False}),
}

add_networks(__name__, NETWORKS)
