"""The small networks that `benchmarks.advice` trains, on images of 1×16×16 pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["NETWORKS"]

CLASSES = 10


class PoolingHead(nn.Sequential):
    """Global pooling and a linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES))


def conv_block(inputs: int, width: int, *, norm: bool, pool: bool = True) -> list[nn.Module]:
    """Return a conv, a batch norm if asked to, a ReLU and a pooling."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, width, 3, padding=1, bias=not norm)]
    if norm:
        layers.append(nn.BatchNorm2d(width))
    return [*layers, nn.ReLU(), *([nn.MaxPool2d(2)] if pool else [])]


def plain() -> nn.Module:
    """Return three convs without norms, the last one read flattened."""
    layers = [
        *conv_block(1, 16, norm=False),
        *conv_block(16, 20, norm=False),
        *conv_block(20, 20, norm=False),
    ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(80, CLASSES))


def normalized() -> nn.Module:
    """Return three convs with batch norms, and global pooling."""
    layers = [*conv_block(1, 16, norm=True), *conv_block(16, 20, norm=True)]
    return nn.Sequential(*layers, *conv_block(20, 20, norm=True, pool=False), PoolingHead(20))


class Residual(nn.Module):
    """A block whose output is added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_block(1, 16, norm=True, pool=False))
        self.inner = nn.Sequential(*conv_block(16, 16, norm=True, pool=False))
        self.outer = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16))
        self.relu = nn.ReLU()
        self.last = nn.Sequential(nn.Conv2d(16, 12, 3, stride=2, padding=1), nn.ReLU())
        self.head = PoolingHead(12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.last(self.relu(x + self.outer(self.inner(x)))))


def depthwise() -> nn.Module:
    """Return a depthwise separable conv."""
    return nn.Sequential(
        *conv_block(1, 16, norm=True),
        nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 12, 1),
        nn.ReLU(),
        PoolingHead(12),
    )


class InvertedResidual(nn.Module):
    """An inverted residual block as in MobileNetV2."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_block(1, 12, norm=True))
        self.inner = nn.Sequential(
            nn.Conv2d(12, 24, 1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU6(),
            nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU6(),
            nn.Conv2d(24, 12, 1, bias=False),
            nn.BatchNorm2d(12),
        )
        self.last = nn.Sequential(*conv_block(12, 16, norm=True, pool=False))
        self.head = PoolingHead(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.last(x + self.inner(x)))


class Branches(nn.Module):
    """Two branches of different kernels, concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_block(1, 8, norm=False))
        self.wide = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.narrow = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())
        self.last = nn.Sequential(*conv_block(16, 12, norm=False, pool=False))
        self.head = PoolingHead(12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.last(torch.cat([self.wide(x), self.narrow(x)], 1)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": plain,
    "residual": Residual,
    "batch norm": normalized,
    "depthwise": depthwise,
    "inverted residual": InvertedResidual,
    "branches": Branches,
}
