"""The activation maps of each image, and their gradients, pooled over the pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from revacnn_lightning.telemetry.unit_layers import UnitLayer, to_maps

__all__ = ["PooledMapRecorder", "PooledMaps"]


@dataclass
class PooledMaps:
    """The maps of B images in a layer of C filters, on the training device.

    Attributes:
        mean_activations: float32 (B, C), the mean of each map over its pixels.
        gradient_sums: float32 (B, C), Σ ∂L/∂a over the pixels of each map; None until it arrives.
    """

    mean_activations: Tensor
    gradient_sums: Tensor | None = None


class PooledMapRecorder:
    """Pools the maps of the selected layers within the batch. Others cost nothing."""

    def __init__(self) -> None:
        self._with_gradient: dict[str, bool] = {}
        self._pooled: dict[str, PooledMaps] = {}
        self._is_recording = False

    @property
    def layers(self) -> frozenset[str]:
        """The selected layers."""
        return frozenset(self._with_gradient)

    @property
    def sampled_layers(self) -> frozenset[str]:
        """The selected layers if this batch is sampled."""
        return self.layers if self._is_recording else frozenset()

    def select(self, layers: Mapping[str, bool]) -> None:
        """Pool these layers and no others from the next batch on; True: their gradients, too."""
        self._with_gradient = dict(layers)

    def begin_batch(self, is_sampled: bool) -> None:
        """Discard the previous batch; record this one if it is sampled."""
        self._is_recording = is_sampled and bool(self._with_gradient)
        self._pooled = {}

    def needs_map(self, layer: str) -> bool:
        """Return whether `add_map` is needed for this layer on this batch."""
        return self._is_recording and layer in self._with_gradient and layer not in self._pooled

    def needs_gradient(self, layer: str) -> bool:
        """Return whether `add_gradient` is needed for the map that `add_map` has received."""
        return self._with_gradient.get(layer, False) and layer in self._pooled

    def add_map(self, layer: str, maps: Tensor) -> None:
        """Pool activation maps (B, C, H, W). Of several calls in a batch the first counts."""
        if maps.numel():
            with torch.no_grad():
                pixels = maps.detach().flatten(2)
                self._pooled[layer] = PooledMaps(pixels.mean(2, dtype=torch.float32))

    def add_gradient(self, name: str, layer: UnitLayer, gradient: Tensor) -> None:
        """Pool the gradient of what the layer returned when `add_map` received its maps."""
        maps, pooled = to_maps(layer, gradient.detach()), self._pooled.get(name)
        if pooled is not None and maps is not None:
            pooled.gradient_sums = maps.flatten(2).sum(2, dtype=torch.float32)

    def pop_maps(self, gradient_scale: Tensor | float) -> dict[str, PooledMaps]:
        """Return the pooled maps of the batch that has ended, by layer.

        Args:
            gradient_scale: what the loss, and with it all gradients, was multiplied by. It is
                divided out.
        """
        pooled, self._pooled = self._pooled, {}
        for maps in pooled.values():
            if maps.gradient_sums is not None:
                maps.gradient_sums = maps.gradient_sums / gradient_scale
        return pooled
