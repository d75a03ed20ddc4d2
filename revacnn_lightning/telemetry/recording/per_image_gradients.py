"""The gradients of the maps of each image, of all layers, for the signal-to-noise ratio."""

from __future__ import annotations

import torch
from torch import Tensor

from revacnn_lightning.telemetry.recording.flat_buffer import FlatBuffer
from revacnn_lightning.telemetry.reductions import signal_to_noise

__all__ = ["PerImageGradients"]


class PerImageGradients:
    """The gradients of the maps of N filters, summed over the pixels of each of B images.

    Args:
        image_count: the number of images, B.
        buffer: receives the signal-to-noise ratios.
    """

    def __init__(self, image_count: int, buffer: FlatBuffer) -> None:
        self._ratios = buffer.row("signal_to_noise")
        self._values = torch.zeros(image_count, len(self._ratios), device=buffer.values.device)

    def slot(self, columns: slice) -> Tensor:
        """Return where the sums of a layer with these filters go: (B, C)."""
        return self._values[:, columns]

    def finalize(self) -> None:
        """Write the signal-to-noise ratios to the buffer."""
        self._ratios.copy_(signal_to_noise(self._values))
