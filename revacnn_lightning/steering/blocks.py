"""The modules that edits put into a network: blocks, and replacements of removed layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from revacnn_lightning.steering.computed_tensors import has_tensor
from revacnn_lightning.telemetry.conv import own_tensor
from revacnn_lightning.telemetry.inspection.side_effects import side_effect_free

__all__ = [
    "BLOCKS",
    "CroppedConv2d",
    "DiracBlock",
    "ResidualBlock",
    "RunChildOnOutput",
    "cropping_of",
    "replacement_of",
]


class ResidualBlock(nn.Module):
    """``x + bn(conv(relu(x)))`` with a batch-norm gain of zero: the identity, bit for bit.

    Residual branches start this way in Goyal et al. 2017, "Accurate, large minibatch SGD". The gain
    learns from the first step on, the conv from the second.
    """

    def __init__(self, channels: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn(self.conv(F.relu(x)))  # (B, C, H, W)


class DiracBlock(nn.Module):
    """A conv initialized to the identity (Zagoruyko & Komodakis 2017, "DiracNets")."""

    def __init__(self, channels: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
        nn.init.dirac_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)  # (B, C, H, W)


BLOCKS = {"residual": ResidualBlock, "dirac": DiracBlock}


class RunChildOnOutput:
    """A forward hook that runs a child of the module on its output. Can be pickled and copied."""

    def __init__(self, child: str) -> None:
        self.child = child

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        return getattr(module, self.child)(output)


class CroppedConv2d(nn.Conv2d):
    """A conv that first crops its input on four sides, or pads it where ``crop`` is positive."""

    crop: tuple[int, int, int, int] = (0, 0, 0, 0)  # left, right, top, bottom, as in F.pad

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, self.crop))


def replacement_of(module: nn.Module, kind: str) -> nn.Module:
    """Return the module that replaces a removed layer: ``"identity"``, or ``"conv"`` for a Conv2d.

    The replacement of a conv is a 1x1 conv with the same stride and groups. It reads the pixels
    under the center of the removed kernel, so the output size is the same for every input size.
    Each of its coefficients is the sum over the removed kernel's.
    """
    if kind == "identity":
        return nn.Identity()
    assert isinstance(module, nn.Conv2d)
    crop = cropping_of(module)
    conv = CroppedConv2d(
        module.in_channels, module.out_channels, 1, stride=module.stride,  # type: ignore[arg-type]
        groups=module.groups, bias=has_tensor(module, "bias"),
    )  # fmt: skip
    conv.crop = crop
    with torch.no_grad():
        conv.weight.copy_(_value(module, "weight").sum((2, 3), keepdim=True))
        if conv.bias is not None:
            conv.bias.copy_(_value(module, "bias"))
    return conv


def _value(module: nn.Module, name: str) -> Tensor:
    """Return a tensor of a module; a parametrization is computed once, without side effects."""
    tensor = own_tensor(module, name)
    if tensor is None:
        with side_effect_free(module, training=False):
            tensor = getattr(module, name)
    assert isinstance(tensor, Tensor)
    return tensor.detach()


def cropping_of(conv: nn.Conv2d) -> tuple[int, int, int, int]:
    """Return the padding (negative: cropping) with which a 1x1 conv has the same output size.

    A conv with padding p (both sides together), dilation d, kernel k and stride s outputs
    floor((H + p - d (k - 1) - 1) / s) + 1 rows. The order is that of ``F.pad``.
    """
    sides: list[int] = []
    for axis in (1, 0):  # F.pad lists the last dimension first
        extent = conv.dilation[axis] * (conv.kernel_size[axis] - 1)
        padding = extent if conv.padding == "same" else 0
        if not isinstance(conv.padding, str):
            padding = 2 * conv.padding[axis]
        total = padding - extent
        sides += [total // 2, total - total // 2]
    return sides[0], sides[1], sides[2], sides[3]
