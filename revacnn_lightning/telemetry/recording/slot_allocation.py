"""Which slots of the flat buffer belong to which layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from revacnn_lightning.telemetry.conv import device_of, filters_first
from revacnn_lightning.telemetry.recording.computed_weights import weight_computing_module
from revacnn_lightning.telemetry.recording.flat_buffer import FlatBuffer
from revacnn_lightning.telemetry.recording.observed_layer import ObservedLayer

__all__ = ["SlotAllocation"]


class SlotAllocation:
    """The slots of all layers, as long as these keep their weights.

    Layers whose weights have one shape are side by side, so that they can be reduced together. A
    layer on another device than the first one has no slots.

    Args:
        layers: receive their slots.

    Attributes:
        buffer: the buffer with the slots.
    """

    def __init__(self, layers: Sequence[ObservedLayer]) -> None:
        device = device_of(layers[0].conv) if layers else torch.device("cpu")
        self.buffer = FlatBuffer(sum(layer.width for layer in layers), device)
        self._weights = [layer.conv._parameters.get("weight") for layer in layers]
        self._held = [
            (layer.conv._parameters, weight, *_kind(weight))
            for layer, weight in zip(layers, self._weights, strict=True)
        ]
        start = 0
        for layer in sorted(layers, key=_order):
            layer.columns = slice(start, start + layer.width)
            _allocate(layer, self.buffer, device)
            start += layer.width

    def is_valid(self) -> bool:
        """Return whether all layers still have the weights that the slots were allocated for."""
        for table, weight, dtype, device in self._held:
            if table.get("weight") is not weight:
                return False
            if weight is not None and (weight.dtype != dtype or weight.device != device):
                return False
        return True


def _kind(weight: Tensor | None) -> tuple[Any, Any]:
    """Return dtype and device of a weight. Those of a lazy weight equal no other ones."""
    if weight is None or is_lazy(weight):
        return None, None
    return weight.dtype, weight.device


def _order(layer: ObservedLayer) -> tuple[Any, ...]:
    """Return a key that sorts layers with equal shapes side by side."""
    weight = layer.conv._parameters.get("weight")
    if weight is None or is_lazy(weight):
        return (), "", layer.model_index
    return tuple(weight.shape[1:]), str(weight.dtype), layer.model_index


def _allocate(layer: ObservedLayer, buffer: FlatBuffer, device: torch.device) -> None:
    slots = buffer.slots(layer.columns.start, layer.columns.stop)
    is_here = device_of(layer.conv) == device
    for sums in (layer.conv_sums, layer.nonlinearity_sums):
        sums.slots = slots if is_here else {}
        sums.output_shape = None  # the dtype of the maps may be another one, too
    weight = layer.conv._parameters.get("weight")
    is_plain = (
        is_here
        and weight is not None
        and not layer.weights.is_split
        and not is_lazy(weight)
        and weight_computing_module(layer.conv) is None
        and filters_first(weight, layer.conv).shape[0] == layer.width
    )
    layer.weights.slots = slots if is_plain else {}
    layer.weights.columns = layer.columns
    layer.weights.plain = weight if is_plain else None
