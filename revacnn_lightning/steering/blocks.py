"""The modules that edits put into a network: blocks, and replacements of removed layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from revacnn_lightning.steering.computed_tensors import has_tensor
from revacnn_lightning.telemetry.conv import stored_tensor
from revacnn_lightning.telemetry.inspection.side_effects import side_effect_free

__all__ = [
    "DiracBlock",
    "IdentityLinear",
    "InputCropOrPadConv2d",
    "LinearResidualBlock",
    "ResidualBlock",
    "RunChildOnOutput",
    "make_block",
    "make_removed_layer_replacement",
    "padding_for_1x1",
]


_Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
_CONVS: dict[int, type[_Conv]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class ResidualBlock(nn.Module):
    """``x + bn(conv(relu(x)))`` with a batch-norm gain of zero: the identity, bit for bit.

    Residual branches start this way in Goyal et al. 2017, "Accurate, large minibatch SGD". The gain
    learns from the first step on, the conv from the second.

    Args:
        channels: the number of channels of its input and output.
        kernel: the size of the kernel along each dimension, odd.
        dims: the number of dimensions of the kernel, 1 to 3.
    """

    def __init__(self, channels: int, kernel: int = 3, dims: int = 2) -> None:
        super().__init__()
        self.conv = _conv_of_same_size(channels, kernel, dims)
        self.bn = _NORMS[dims](channels)
        nn.init.zeros_(self.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn(self.conv(F.relu(x)))  # (B, C, ...)


class DiracBlock(nn.Module):
    """A conv initialized to the identity (Zagoruyko & Komodakis 2017, "DiracNets").

    The arguments are those of `ResidualBlock`.
    """

    def __init__(self, channels: int, kernel: int = 3, dims: int = 2) -> None:
        super().__init__()
        self.conv = _conv_of_same_size(channels, kernel, dims)
        nn.init.dirac_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)  # (B, C, ...)


class LinearResidualBlock(nn.Module):
    """``x + gain * linear(relu(x))`` with a gain of zero: the identity, bit for bit.

    The gain is that of ReZero (Bachlechner et al. 2020, "ReZero is All You Need"), one per feature.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, features, bias=False)
        self.gain = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gain * self.linear(F.relu(x))  # (..., C)


class IdentityLinear(nn.Module):
    """A linear layer initialized to the identity."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, features, bias=False)
        nn.init.eye_(self.linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)  # (..., C)


def make_block(kind: str, channels: int, kernel: int, dims: int) -> nn.Module:
    """Return a new block of kind ``"residual"`` or ``"dirac"`` that does not change its input.

    Args:
        kind: the kind of the block.
        channels: the number of channels of its input and output.
        kernel: the size of the kernel along each dimension.
        dims: the number of dimensions of the kernel; 0 makes a block of linear layers.
    """
    if dims == 0:
        return LinearResidualBlock(channels) if kind == "residual" else IdentityLinear(channels)
    kinds = {"residual": ResidualBlock, "dirac": DiracBlock}
    return kinds[kind](channels, kernel, dims)


def _conv_of_same_size(channels: int, kernel: int, dims: int) -> _Conv:
    """Return a conv without bias that keeps the number of channels and the size of its input."""
    return _CONVS[dims](channels, channels, kernel, padding=kernel // 2, bias=False)


class RunChildOnOutput:
    """A forward hook that runs a child of the module on its output. Can be pickled and copied."""

    def __init__(self, child: str) -> None:
        self.child = child

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        return getattr(module, self.child)(output)


class InputCropOrPadConv2d(nn.Conv2d):
    """A conv that first pads its input on four sides; negative ``input_padding`` crops it."""

    input_padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # left, right, top, bottom, as in F.pad

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, self.input_padding))


def make_removed_layer_replacement(module: nn.Module, kind: str) -> nn.Module:
    """Return a new module to replace a removed layer: ``"identity"``, or ``"conv"`` for a Conv2d.

    The replacement of a conv is a 1x1 conv with the same stride and groups. It reads the pixels
    under the center of the removed kernel, so the output size is the same for every input size.
    Each of its coefficients is the sum over the removed kernel's.
    """
    if kind == "identity":
        return nn.Identity()
    assert isinstance(module, nn.Conv2d)
    input_padding = padding_for_1x1(module)
    conv = InputCropOrPadConv2d(
        module.in_channels, module.out_channels, 1, stride=module.stride,  # type: ignore[arg-type]
        groups=module.groups, bias=has_tensor(module, "bias"),
    )  # fmt: skip
    conv.input_padding = input_padding
    with torch.no_grad():
        conv.weight.copy_(_value(module, "weight").sum((2, 3), keepdim=True))
        if conv.bias is not None:
            conv.bias.copy_(_value(module, "bias"))
    return conv


def _value(module: nn.Module, name: str) -> Tensor:
    """Return a tensor of a module; a parametrization is computed once, without side effects."""
    tensor = stored_tensor(module, name)
    if tensor is None:
        with side_effect_free(module, training=False):
            tensor = getattr(module, name)
    assert isinstance(tensor, Tensor)
    return tensor.detach()


def padding_for_1x1(conv: nn.Conv2d) -> tuple[int, int, int, int]:
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
