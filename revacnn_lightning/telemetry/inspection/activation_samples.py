"""Samples the activations of the units of one layer at a few positions of each batch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["POSITIONS", "ActivationSampleRecorder"]

POSITIONS = 256  # of a batch, spread evenly over its images and pixels


class ActivationSampleRecorder:
    """Keeps the activations of one layer at `POSITIONS` positions of a batch.

    Without a selected layer, it costs nothing. The positions are always the same, so that no random
    number generator is used.
    """

    def __init__(self) -> None:
        self._layer: str | None = None
        self._units: Tensor | None = None
        self._sample: Tensor | None = None
        self._is_recording = False

    @property
    def layers(self) -> frozenset[str]:
        """The selected layer, if there is one."""
        return frozenset(() if self._layer is None else (self._layer,))

    def select(self, layer: str | None, units: Tensor | None = None) -> None:
        """Sample this layer, and no other, from the next batch on; None: no layer.

        Args:
            layer: the name of the layer.
            units: indices of the units to sample, int64; None: all.
        """
        self._layer, self._units, self._sample = layer, units, None

    def begin_batch(self) -> None:
        """Discard the sample of the previous batch."""
        self._sample, self._is_recording = None, self._layer is not None

    def needs_map(self, layer: str) -> bool:
        """Return whether `add_map` is needed for this layer on this batch."""
        return self._is_recording and layer == self._layer and self._sample is None

    def add_map(self, maps: Tensor) -> None:
        """Sample activation maps (B, C, H, W). Of several calls in a batch the first counts."""
        with torch.no_grad():
            pixels = maps.detach().flatten(2)  # (B, C, P)
            total = pixels.shape[0] * pixels.shape[2]
            if not total:
                return
            count = min(POSITIONS, total)
            at = torch.arange(count, device=maps.device) * total // count
            images, positions = at // pixels.shape[2], at % pixels.shape[2]
            sample = pixels[images, :, positions]  # (n, C)
            if self._units is not None and self._units.max() < sample.shape[1]:
                sample = sample[:, self._units.to(maps.device)]
            self._sample = sample.float()

    def pop_sample(self) -> Tensor | None:
        """Return the sample of the batch that has ended, float32 (n, C) on the device."""
        sample, self._sample = self._sample, None
        return sample
