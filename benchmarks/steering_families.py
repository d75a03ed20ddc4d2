"""Small networks of families that torchvision lacks, for `benchmarks.steering_zoo`.

Each is a ResNet with one thing exchanged: the norm, the weights of its convolutions, or an
attention module behind the first norm of each block.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops import DeformConv2d

__all__ = ["FAMILIES"]


class StandardizedConv2d(nn.Conv2d):
    """Standardizes each filter (Qiao et al. 2019) by a batch norm over the weight, as timm does."""

    def forward(self, x: Tensor) -> Tensor:
        rows = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(rows, None, None, training=True, eps=1e-6).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class EfficientAttention(nn.Module):
    """ECA (Wang et al. 2020): a conv slides along the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.mean((2, 3)).unsqueeze(1)).transpose(1, 2).unsqueeze(-1)
        return x * torch.sigmoid(y)


class SpatialAttention(nn.Module):
    """The spatial part of CBAM (Woo et al. 2018): mean and maximum over the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.conv(both))


class GatedAttention(nn.Module):
    """A gate of half of the channels, by a GLU (Dauphin et al. 2017)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand, self.project = (
            nn.Conv2d(channels, channels, 1),
            nn.Conv2d(channels // 2, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(F.glu(self.expand(x), 1))


class LinearAttention(nn.Module):
    """Two heads whose queries are a softmax over the channels (Shen et al. 2021)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key = nn.Conv2d(channels, 16, 1), nn.Conv2d(channels, 16, 1)
        self.value, self.project = nn.Conv2d(channels, 24, 1), nn.Conv2d(24, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        query, key, value = (
            each(x).reshape(b, 2, -1, h * w) for each in (self.query, self.key, self.value)
        )
        context = key.softmax(-1) @ value.transpose(-1, -2)
        y = (context.transpose(-1, -2) @ query.softmax(-2)).reshape(b, -1, h, w)
        return x + self.project(y)


class DeformableConvolution(nn.Module):
    """A deformable convolution (Dai et al. 2017), whose offsets a convolution computes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce, self.offset = nn.Conv2d(channels, 16, 1), nn.Conv2d(channels, 18, 3, padding=1)
        self.deform = DeformConv2d(16, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.deform(F.relu(self.reduce(x)), self.offset(x))


class LayerScale(nn.Module):
    """A scale for each channel and a position embedding for each pixel of the last stage."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(1, channels, 1, 1) + 0.5)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.scale * x)


def small_resnet(norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> ResNet:
    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=100, norm_layer=norm)


def with_attention(attention: Callable[[int], nn.Module]) -> nn.Module:
    """Return a ResNet with such a module behind the first norm of each block."""
    model = small_resnet()
    for block in (m for m in model.modules() if isinstance(m, BasicBlock)):
        block.bn1 = nn.Sequential(block.bn1, attention(block.conv1.out_channels))
    return model


def standardized_resnet() -> nn.Module:
    """Return a ResNet with standardized weights and group norms."""
    model = small_resnet(partial(nn.GroupNorm, 8))
    for block in (m for m in model.modules() if isinstance(m, BasicBlock)):
        for name in ("conv1", "conv2"):
            conv = getattr(block, name)
            new = StandardizedConv2d(
                conv.in_channels, conv.out_channels, 3, conv.stride, conv.padding, bias=False
            )
            setattr(block, name, new)
    return model


def spectral_resnet() -> nn.Module:
    """Return a ResNet whose convolutions have spectral norms as hooks (Miyato et al. 2018)."""
    model = small_resnet()
    for block in (m for m in model.modules() if isinstance(m, BasicBlock)):
        for conv in (block.conv1, block.conv2):
            nn.utils.spectral_norm(conv)
    return model


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "own_group_norm": partial(small_resnet, partial(nn.GroupNorm, 16)),
    "own_instance_norm": partial(small_resnet, partial(nn.InstanceNorm2d, affine=True)),
    "own_plain_instance_norm": partial(small_resnet, nn.InstanceNorm2d),
    "own_layer_norm": partial(small_resnet, partial(nn.GroupNorm, 1)),
    "own_standardized": standardized_resnet,
    "own_eca": partial(with_attention, EfficientAttention),
    "own_cbam": partial(with_attention, SpatialAttention),
    "own_glu": partial(with_attention, GatedAttention),
    "own_linear_attention": partial(with_attention, LinearAttention),
    "own_deformable": partial(with_attention, DeformableConvolution),
    "own_spectral_norm": spectral_resnet,
    "own_layer_scale": partial(with_attention, LayerScale),
}
