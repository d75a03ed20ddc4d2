"""Eight small networks, and where their parameters hold the filters of one of their layers.

This is stated here by hand, so that the benchmark depends on no tool's idea of what is coupled.
The networks are written as the documentation of all tools recommends: every layer is an attribute
of its own, no size is written into ``forward``, and `torch.fx` can trace them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["NETWORKS", "EditSubject", "FilterHolder", "silence_filters"]

CLASSES = 10


class FilterHolder(NamedTuple):
    """Where a parameter holds the filters of the edited layer.

    Filter ``f`` has the indices ``offset + f * block`` to ``offset + (f + 1) * block`` along
    ``dim``.
    """

    parameter: str
    dim: int
    offset: int = 0
    block: int = 1

    def indices(self, filters: list[int]) -> list[int]:
        """Return the indices of these filters along ``dim``."""
        starts = (self.offset + f * self.block for f in filters)
        return [index for start in starts for index in range(start, start + self.block)]


class EditSubject(NamedTuple):
    """A network, its edited layer, the filters to remove from it, and all that holds filters."""

    make: Callable[[], nn.Module]
    layer: str
    filters: list[int]
    holders: list[FilterHolder]


class Plain(nn.Module):
    """Two convolutions; a linear layer reads all pixels of the second one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(8, 12, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(12 * 16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.pool2(self.relu2(self.conv2(x)))
        return self.head(self.flatten(x))


class _WithStem(nn.Module):
    """A convolution with batch norm in front, global pooling and a linear layer at the end."""

    def __init__(self, stem: int, features: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, stem, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(stem)
        self.stem_relu = nn.ReLU()
        self.body(stem, features)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(features, CLASSES)

    def body(self, stem: int, features: int) -> None:
        """Create the layers between the first convolution and the pooling."""
        raise NotImplementedError

    def features(self, x: Tensor) -> Tensor:
        """Return the output of these layers."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_relu(self.stem_norm(self.stem(x)))
        return self.head(self.flatten(self.pool(self.features(x))))


class BatchNorm(_WithStem):
    """Convolutions with batch norm, one after the other."""

    def body(self, stem: int, features: int) -> None:
        self.conv1 = nn.Conv2d(stem, 12, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(12)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(12, features, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(features)
        self.relu2 = nn.ReLU()

    def features(self, x: Tensor) -> Tensor:
        x = self.relu1(self.norm1(self.conv1(x)))
        return self.relu2(self.norm2(self.conv2(x)))


class Residual(_WithStem):
    """A residual block. Its sum needs the same channels in the first and the last convolution."""

    def body(self, stem: int, features: int) -> None:
        self.conv1 = nn.Conv2d(stem, 12, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(12)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(12, stem, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(stem)
        self.relu2 = nn.ReLU()

    def features(self, x: Tensor) -> Tensor:
        y = self.relu1(self.norm1(self.conv1(x)))
        return self.relu2(x + self.norm2(self.conv2(y)))


class Separable(_WithStem):
    """An expansion, a depthwise convolution and a projection, as in MobileNet."""

    def body(self, stem: int, features: int) -> None:
        self.expand = nn.Conv2d(stem, 16, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(16)
        self.relu1 = nn.ReLU()
        self.depthwise = nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16, bias=False)
        self.norm2 = nn.BatchNorm2d(16)
        self.relu2 = nn.ReLU()
        self.project = nn.Conv2d(16, features, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(features)

    def features(self, x: Tensor) -> Tensor:
        x = self.relu1(self.norm1(self.expand(x)))
        x = self.relu2(self.norm2(self.depthwise(x)))
        return self.norm3(self.project(x))


class Grouped(_WithStem):
    """A convolution with four groups. One filter of each group is removed."""

    def body(self, stem: int, features: int) -> None:
        self.grouped = nn.Conv2d(stem, 16, 3, padding=1, groups=4, bias=False)
        self.norm1 = nn.BatchNorm2d(16)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(16, features, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(features)
        self.relu2 = nn.ReLU()

    def features(self, x: Tensor) -> Tensor:
        x = self.relu1(self.norm1(self.grouped(x)))
        return self.relu2(self.norm2(self.conv2(x)))


class Concatenated(_WithStem):
    """Two branches. The edited one comes first: what reads the other one has to move."""

    def body(self, stem: int, features: int) -> None:
        self.branch1 = nn.Conv2d(stem, 8, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.relu1 = nn.ReLU()
        self.branch2 = nn.Conv2d(stem, 8, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.relu2 = nn.ReLU()
        self.mix = nn.Conv2d(16, features, 3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(features)
        self.relu3 = nn.ReLU()

    def features(self, x: Tensor) -> Tensor:
        x1 = self.relu1(self.norm1(self.branch1(x)))
        x2 = self.relu2(self.norm2(self.branch2(x)))
        return self.relu3(self.norm3(self.mix(torch.cat([x1, x2], 1))))


class UNet(_WithStem):
    """A level down and up again. The edited layer is read inside and across the skip connection."""

    def body(self, stem: int, features: int) -> None:
        self.down = nn.MaxPool2d(2)
        self.middle = nn.Conv2d(stem, 16, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(16)
        self.relu1 = nn.ReLU()
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.decoder = nn.Conv2d(stem + 8, features, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(features)
        self.relu2 = nn.ReLU()

    def features(self, x: Tensor) -> Tensor:
        y = self.up(self.relu1(self.norm1(self.middle(self.down(x)))))
        return self.relu2(self.norm2(self.decoder(torch.cat([x, y], 1))))


class SqueezeExcitation(_WithStem):
    """Each channel is scaled by what two 1×1 convolutions make of the means of all channels."""

    def body(self, stem: int, features: int) -> None:
        self.conv1 = nn.Conv2d(stem, 16, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(16)
        self.relu1 = nn.ReLU()
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(16, 4, 1)
        self.relu2 = nn.ReLU()
        self.excite = nn.Conv2d(4, 16, 1)
        self.gate = nn.Sigmoid()
        self.project = nn.Conv2d(16, features, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(features)

    def features(self, x: Tensor) -> Tensor:
        x = self.relu1(self.norm1(self.conv1(x)))
        scale = self.gate(self.excite(self.relu2(self.reduce(self.squeeze(x)))))
        return self.norm2(self.project(x * scale))


def _rows(*parameters: str) -> list[FilterHolder]:
    """Return the holders whose first dimension is the filters."""
    return [FilterHolder(parameter, 0) for parameter in parameters]


def _norm(name: str) -> list[FilterHolder]:
    return _rows(f"{name}.weight", f"{name}.bias")


NETWORKS: dict[str, EditSubject] = {
    "plain + linear": EditSubject(
        Plain, "conv2", [3],
        [*_rows("conv2.weight", "conv2.bias"), FilterHolder("head.weight", 1, block=16)],
    ),
    "batch norm": EditSubject(
        lambda: BatchNorm(8, 16), "conv1", [5],
        [*_rows("conv1.weight"), *_norm("norm1"), FilterHolder("conv2.weight", 1)],
    ),
    "residual": EditSubject(
        lambda: Residual(12, 12), "stem", [4],
        [*_rows("stem.weight", "conv2.weight"), *_norm("stem_norm"), *_norm("norm2"),
         FilterHolder("conv1.weight", 1), FilterHolder("head.weight", 1)],
    ),
    "depthwise-separable": EditSubject(
        lambda: Separable(8, 12), "expand", [6],
        [*_rows("expand.weight", "depthwise.weight"), *_norm("norm1"), *_norm("norm2"),
         FilterHolder("project.weight", 1)],
    ),
    "grouped": EditSubject(
        lambda: Grouped(8, 12), "grouped", [1, 5, 9, 13],
        [*_rows("grouped.weight"), *_norm("norm1"), FilterHolder("conv2.weight", 1)],
    ),
    "concatenation": EditSubject(
        lambda: Concatenated(8, 12), "branch1", [2],
        [*_rows("branch1.weight"), *_norm("norm1"), FilterHolder("mix.weight", 1)],
    ),
    "U-Net": EditSubject(
        lambda: UNet(8, 12), "stem", [3],
        [*_rows("stem.weight"), *_norm("stem_norm"), FilterHolder("middle.weight", 1),
         FilterHolder("decoder.weight", 1)],
    ),
    "squeeze-and-excitation": EditSubject(
        lambda: SqueezeExcitation(8, 12), "conv1", [7],
        [*_rows("conv1.weight", "excite.weight", "excite.bias"), *_norm("norm1"),
         FilterHolder("reduce.weight", 1), FilterHolder("project.weight", 1)],
    ),
}  # fmt: skip


def silence_filters(model: nn.Module, subject: EditSubject) -> None:
    """Set everything of the subject's filters to zero, before the training.

    Behind a ReLU, such a filter never gets a gradient: neither its weights nor those that read it
    ever change, and an optimizer keeps zeros for them. The network without it is the same network.
    """
    named = dict(model.named_parameters())
    with torch.no_grad():
        for holder in subject.holders:
            indices = torch.tensor(holder.indices(subject.filters))
            named[holder.parameter].index_fill_(holder.dim, indices, 0.0)
