"""A small network of each kind of layer with filters, for tests of statistics and of edits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["KINDS", "Kind"]


class Signals(nn.Module):
    """1D convolutions: plain, grouped, transposed; a strided shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 6, 5, padding=2)
        self.norm = nn.BatchNorm1d(6)
        self.relu = nn.ReLU()
        self.grouped = nn.Conv1d(6, 8, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose1d(8, 6, 2, stride=2)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.first(x)))
        x = self.up(F.relu(self.grouped(x)))
        return self.fc(F.relu(x).mean(2))


class Volumes(nn.Module):
    """3D convolutions: a residual sum, a depthwise one, a transposed one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(2, 6, 3, padding=1)
        self.norm = nn.BatchNorm3d(6)
        self.relu = nn.ReLU()
        self.second = nn.Conv3d(6, 6, (1, 3, 3), padding=(0, 1, 1))
        self.depthwise = nn.Conv3d(6, 6, 3, padding=1, groups=6)
        self.up = nn.ConvTranspose3d(6, 4, 2, stride=2)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.first(x)))
        x = F.relu(x + self.second(x))
        x = F.relu(self.up(self.depthwise(x)))
        return self.fc(x.mean((2, 3, 4)))


class Perceptron(nn.Module):
    """Hidden linear layers on flattened images, with a batch norm and a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(48, 10)
        self.norm = nn.BatchNorm1d(10)
        self.relu = nn.ReLU()
        self.second = nn.Linear(10, 8)
        self.third = nn.Linear(8, 8, bias=False)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.first(x.flatten(1))))
        x = F.relu(self.second(x))
        return self.fc(F.relu(x + self.third(x)))


class Sequences(nn.Module):
    """Linear layers on sequences (B, T, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.relu = nn.ReLU()
        self.second = nn.Linear(6, 8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.relu(self.first(x)))
        return self.fc(torch.tanh(x).mean(1))


class ChannelsLast(nn.Module):
    """Pointwise linear layers on channels-last maps between convolutions, as in ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.first = nn.Linear(6, 8)
        self.relu = nn.GELU()
        self.second = nn.Linear(8, 6)
        self.scale = nn.Parameter(torch.full((6,), 0.5))
        self.last = nn.Conv2d(6, 4, 1)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        y = self.second(self.relu(self.first(x.permute(0, 2, 3, 1)))) * self.scale
        x = F.relu(self.last(x + y.permute(0, 3, 1, 2)))
        return self.fc(x.mean((2, 3)))


class Flattened(nn.Module):
    """A convolution, a flattened map with dropout, and a hidden linear layer, as in VGG."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.first = nn.Linear(6 * 4, 8)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(F.relu(self.conv(x)), 2)
        return self.fc(self.relu(self.first(self.drop(x.flatten(1)))))


@dataclass(frozen=True)
class Kind:
    """A network, the shape of a batch for it, and its layers whose filters can be edited."""

    net: type[nn.Module]
    shape: tuple[int, ...]
    layers: tuple[str, ...]

    def build(self, seed: int = 0) -> nn.Module:
        """Return the network in double precision, its norms without zeros and equal values."""
        torch.manual_seed(seed)
        model = self.net().double()
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_(0.2, 0.3)
                    module.running_mean.normal_(0.0, 0.1)
                    module.running_var.uniform_(0.5, 1.5)
        return model

    def batch(self, seed: int = 1, size: int = 4) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(size, *self.shape[1:], generator=generator, dtype=torch.float64)


KINDS = {
    "1D": Kind(Signals, (4, 2, 12), ("first", "grouped", "up")),
    "3D": Kind(Volumes, (4, 2, 4, 6, 6), ("first", "second", "depthwise", "up")),
    "MLP": Kind(Perceptron, (4, 3, 4, 4), ("first", "second", "third")),
    "sequences": Kind(Sequences, (4, 7, 4), ("first", "second")),
    "channels-last": Kind(ChannelsLast, (4, 3, 6, 6), ("conv", "first", "second", "last")),
    "flattened": Kind(Flattened, (4, 3, 6, 6), ("conv", "first")),
}
