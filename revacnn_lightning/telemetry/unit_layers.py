"""Layers with filters: convolutions of one to three dimensions, and linear layers.

The units of a linear layer are its filters: each has one row of the weight. What a layer returns is
read as *maps* (B, C, H, W) of B images and C filters, whose H×W pixels are the positions at which
the layer computes the filter:

============================  ====================  ===================
layer                         output                maps
============================  ====================  ===================
1D convolution                (B, C, L)             (B, C, 1, L)
2D convolution                (B, C, H, W)          the same
3D convolution                (B, C, D, H, W)       (B, C, D·H, W)
linear                        (B, C)                (B, C, 1, 1)
linear, of sequences          (B, T, C)             (B, C, 1, T)
linear, of channels-last      (B, H, W, C)          (B, C, H, W)
============================  ====================  ===================

Without a batch dimension, an output of a convolution is that of one image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from revacnn_lightning.telemetry.module_tree import list_named_modules

__all__ = [
    "UnitLayer",
    "filter_count",
    "group_count",
    "input_count",
    "is_bchw_output",
    "is_forward_called",
    "is_transposed",
    "kernel_size",
    "named_unit_layers",
    "own_parameters",
    "to_maps",
    "to_maps_or_raise",
]

Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
UnitLayer = nn.Conv1d | nn.Conv2d | nn.Conv3d | Transposed | nn.Linear


def named_unit_layers(model: nn.Module) -> Iterator[tuple[str, UnitLayer]]:
    """Yield the name of each layer with filters, and the layer, each once, in the model's order."""
    for name, module in list_named_modules(model):
        if isinstance(module, UnitLayer):
            yield name, module


def own_parameters(layer: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the parameters of a layer and of its parametrizations, not of inserted blocks."""
    yield from layer.parameters(recurse=False)
    parametrizations = layer._modules.get("parametrizations")
    if parametrizations is not None:
        yield from parametrizations.parameters()


def filter_count(layer: UnitLayer) -> int:
    """Return C, the number of filters."""
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def input_count(layer: UnitLayer) -> int:
    """Return the number of channels or features that the layer reads."""
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def group_count(layer: UnitLayer) -> int:
    """Return the number of groups; a linear layer is one group."""
    return 1 if isinstance(layer, nn.Linear) else layer.groups


def kernel_size(layer: UnitLayer) -> tuple[int, ...]:
    """Return the size of the kernel along each dimension; () of a linear layer."""
    return () if isinstance(layer, nn.Linear) else tuple(layer.kernel_size)


def is_transposed(layer: UnitLayer) -> bool:
    """Return whether the weight has its filters along the second dimension."""
    return isinstance(layer, Transposed)


def is_forward_called(layer: UnitLayer) -> bool:
    """Return whether the network calls the forward of the layer.

    `nn.MultiheadAttention` reads the weight of its output projection instead of calling it.
    """
    return not isinstance(layer, NonDynamicallyQuantizableLinear)


def to_maps(layer: UnitLayer, output: Tensor) -> Tensor | None:
    """Return what the layer, or an elementwise module behind it, returned as maps (B, C, H, W).

    The maps are a view wherever that is possible. None if the output has not as many dimensions as
    the layer returns.
    """
    if isinstance(layer, nn.Linear):
        return _features_to_maps(output)
    positions = len(layer.kernel_size)
    if output.dim() == positions + 1:
        output = output.unsqueeze(0)
    if output.dim() != positions + 2:
        return None
    if positions == 2:
        return output
    return output.unsqueeze(2) if positions == 1 else output.flatten(2, 3)


def to_maps_or_raise(layer: UnitLayer, output: Tensor) -> Tensor:
    """Return `to_maps` of an output that must have the dimensions that the layer returns."""
    maps = to_maps(layer, output)
    assert maps is not None
    return maps


def is_bchw_output(layer: UnitLayer, output_shape: Sequence[int]) -> bool:
    """Return whether an output of this shape is maps (B, C, H, W) as it is."""
    return len(kernel_size(layer)) == 2 and len(output_shape) == 4


def _features_to_maps(output: Tensor) -> Tensor | None:
    """Return the output of a linear layer, (B, ..., C), as maps (B, C, H, W)."""
    if output.dim() == 0:
        return None
    if output.dim() == 1:
        output = output.unsqueeze(0)
    if output.dim() == 2:
        return output.unsqueeze(2).unsqueeze(3)
    maps = output.movedim(-1, 1)
    if maps.dim() == 3:
        return maps.unsqueeze(2)
    return maps if maps.dim() == 4 else maps.flatten(2, -2)
