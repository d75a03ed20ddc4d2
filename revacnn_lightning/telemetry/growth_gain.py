"""Where one more filter would lower the loss most: the singular values of its possible gradients.

A new filter of a layer has coefficients w, and outgoing weights v, one set for each layer that
reads it. With v = 0 the network computes the same as before, and ∂L/∂v is all that makes the filter
useful. Without the non-linearity it is linear in w: ∂L/∂v = M w, where M adds up, over images and
positions, the gradient of the loss at the reading layer's output times what the layer itself reads.
Its largest singular value σ₁ is the norm of ∂L/∂v for the best w of length 1, and that w is the
first right singular vector (Evci et al. 2022, "GradMax", arXiv:2201.05125). Related measures weight
M: by the inputs' covariance (Verbockhaven et al. 2024, "Growing Tiny Networks"), or by the Fisher
information (Mitchell et al. 2023, "Self Expanding Neural Networks", arXiv:2307.04526).

A layer in groups grows by one filter in each group at a time, and each has another M: there is no
gain of one filter. Through a depthwise convolution, a new filter brings a new depthwise kernel, and
∂L/∂v is linear in each of the two, but not in both: it has no largest singular value. Therefore
layers that are in groups, or are read by such layers, have no gain.

M is never formed. Multiplying by it, and by its transpose, is a backward pass through two
convolutions of a few channels, so subspace iteration finds the largest values. Between the layers
only a change of size is taken into account, as average pooling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from revacnn_lightning.telemetry.unit_layers import (
    UnitLayer,
    filter_count,
    group_count,
    input_count,
    is_transposed,
    kernel_size,
)

__all__ = ["LayerPairTensors", "find_best_new_filters", "outgoing_gradient_norms", "why_no_gain"]

DIRECTIONS = 4  # of the subspace
ITERATIONS = 30

CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
POOL = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


@dataclass(frozen=True)
class LayerPairTensors:
    """The tensors recorded in a step at a layer, and at a layer that reads its output.

    Attributes:
        inputs: the inputs of the first layer, as the module receives them, (B, ...).
        reader: the layer that reads the filters of the first one.
        reader_input_size: the size of the reader's input, (H, W); () for a linear layer.
        reader_output_gradient: ∂L/∂y of the reader's output y, (B, ...).
    """

    inputs: Tensor
    reader: UnitLayer
    reader_input_size: tuple[int, ...]
    reader_output_gradient: Tensor


def why_no_gain(layer: UnitLayer, reader: UnitLayer) -> str:
    """Return why the gain of a layer cannot be computed; "" if it can."""
    if group_count(layer) > 1:
        return "a layer in groups grows by a filter in each group, so one filter has no gain"
    if group_count(reader) == input_count(reader) > 1:
        return (
            "a depthwise layer reads it: a new filter brings a kernel there, and the gain of both "
            "is not that of one"
        )
    if group_count(reader) > 1:
        return "a layer in groups reads it, which grows by a filter in each group"
    if isinstance(layer, nn.Linear) and not isinstance(reader, nn.Linear):
        return "a convolution reads a linear layer"
    return ""


def find_best_new_filters(
    layer: UnitLayer, readers: Sequence[LayerPairTensors]
) -> tuple[Tensor, Tensor]:
    """Return the new filters with the largest gains, and these: the largest singular values of M.

    Cost: `ITERATIONS` times a forward and a backward pass of `DIRECTIONS` filters over the inputs.

    Args:
        layer: the layer that a filter would be added to.
        readers: the tensors of all layers that read it, on some images.

    Returns:
        values: the gains, descending, (k,).
        directions: the coefficients of length 1 with these gains, (k, *coefficients of a filter).
    """
    shape = (input_count(layer), *kernel_size(layer))
    length = math.prod(shape)
    count = min(DIRECTIONS, length)
    like = readers[0].inputs
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(length, count, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(start).Q.T.to(like)
    for _ in range(ITERATIONS):
        _, back = _multiply(layer, readers, basis.reshape(count, *shape))
        basis = torch.linalg.qr(back.flatten(1).T).Q.T
    forward, _ = _multiply(layer, readers, basis.reshape(count, *shape))
    rotation, values, _ = torch.linalg.svd(forward, full_matrices=False)
    directions = rotation.T @ basis
    return values, directions.reshape(len(values), *shape)


def outgoing_gradient_norms(
    layer: UnitLayer, readers: Sequence[LayerPairTensors], coefficients: Tensor, bias: float = 0.0
) -> Tensor:
    """Return the norms of ∂L/∂v of new filters behind a ReLU, (k,).

    Args:
        layer: the layer that filters would be added to.
        readers: the tensors of all layers that read it, on some images.
        coefficients: the coefficients of the new filters, (k, *coefficients of a filter).
        bias: the bias of each of them.
    """
    return _multiply(layer, readers, coefficients, bias=bias, rectify=True)[0].norm(dim=1)


@torch.enable_grad()
def _multiply(
    layer: UnitLayer,
    readers: Sequence[LayerPairTensors],
    filters: Tensor,
    *,
    bias: float = 0.0,
    rectify: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return M w of each filter, flat, (k, n), and Mᵀ M w, (k, *coefficients)."""
    w = filters.detach().requires_grad_()
    outgoing, total = [], filters.new_zeros(())
    for reader_tensors in readers:
        maps = _maps(layer, reader_tensors.inputs, w) + bias
        maps = _resized(maps.relu() if rectify else maps, layer, reader_tensors)
        v = _outgoing_like(reader_tensors.reader, maps).requires_grad_()
        outgoing.append((reader_tensors, v))
        total = (
            total
            + (reader_tensors.reader_output_gradient * _read(reader_tensors.reader, maps, v)).sum()
        )
    found = torch.autograd.grad(total, [v for _, v in outgoing], create_graph=True)
    by_reader: dict[int, Tensor] = {}
    for (reader_tensors, _), gradient in zip(outgoing, found, strict=True):
        key = id(reader_tensors.reader)
        known = by_reader.get(key)
        by_reader[key] = gradient if known is None else known + gradient
    forward = torch.cat([g.transpose(0, 1).flatten(1) for g in by_reader.values()], 1)
    (back,) = torch.autograd.grad(forward.square().sum() / 2, w)
    return forward.detach(), back.detach()


def _pad_sizes(layer: Any) -> list[int]:
    """Return the padding of a convolution before and after each dimension, the last one first."""
    if layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        pairs = [(total // 2, total - total // 2) for total in totals]
    elif layer.padding == "valid":
        pairs = [(0, 0)] * len(layer.kernel_size)
    else:
        pairs = [(size, size) for size in layer.padding]
    return [size for pair in reversed(pairs) for size in pair]


def _maps(layer: Any, inputs: Tensor, filters: Tensor) -> Tensor:
    """Return the maps of filters, (B, k, ...), or the units of a linear layer, (B, ..., k)."""
    if isinstance(layer, nn.Linear):
        return F.linear(inputs, filters)
    if layer.padding_mode != "zeros":
        inputs = F.pad(inputs, _pad_sizes(layer), mode=layer.padding_mode)
        padding: Any = 0
    else:
        padding = layer.padding
    if is_transposed(layer):
        transpose: Any = TRANSPOSE[filters.ndim - 2]
        return transpose(
            inputs, filters.transpose(0, 1), None, layer.stride, layer.padding,
            layer.output_padding, 1, layer.dilation,
        )  # fmt: skip
    convolve: Any = CONVOLVE[filters.ndim - 2]
    return convolve(inputs, filters, None, layer.stride, padding, layer.dilation)


def _resized(maps: Tensor, layer: UnitLayer, reader_tensors: LayerPairTensors) -> Tensor:
    """Return the maps as the reader receives them: (B, k, *size), or (B, ..., k·positions)."""
    reader = reader_tensors.reader
    if isinstance(layer, nn.Linear):
        return maps
    pool: Any = POOL[maps.ndim - 2]
    if not isinstance(reader, nn.Linear):
        same = tuple(maps.shape[2:]) == reader_tensors.reader_input_size
        return maps if same else pool(maps, reader_tensors.reader_input_size)
    positions = reader.in_features // filter_count(layer)
    size = list(maps.shape[2:])
    if math.prod(size) != positions:
        factor = (math.prod(size) / positions) ** (1 / len(size))
        size = [max(1, round(one / factor)) for one in size]
    if math.prod(size) != positions:
        raise ValueError(f"{list(maps.shape[2:])} positions do not become {positions}")
    return pool(maps, size).flatten(2)


def _outgoing_like(reader: UnitLayer, maps: Tensor) -> Tensor:
    """Return zero outgoing weights of the k filters of maps, (outputs, k, ...)."""
    count = maps.shape[1] if isinstance(reader, nn.Linear) and maps.ndim == 3 else maps.shape[-1]
    if isinstance(reader, nn.Linear):
        positions = maps.shape[2] if maps.ndim == 3 else 1
        return maps.new_zeros(reader.out_features, count, positions)
    return maps.new_zeros(filter_count(reader), maps.shape[1], *kernel_size(reader))


def _read(reader: UnitLayer, maps: Tensor, outgoing: Tensor) -> Tensor:
    """Return what the outgoing weights add to the reader's output."""
    if isinstance(reader, nn.Linear):
        return F.linear(maps.flatten(1), outgoing.flatten(1))
    return _maps(reader, maps, outgoing)
