"""Sums over the pixels of each image, of all layers, for statistics that compare the images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from revacnn_lightning.telemetry.price_reductions import estimate_removal_loss_changes
from revacnn_lightning.telemetry.recording.flat_buffer import FlatBuffer
from revacnn_lightning.telemetry.reductions import signal_to_noise

__all__ = ["PER_IMAGE_STATISTICS", "PerImageSums"]

# What the sums of all images become, by statistic: (B, N) -> (N,).
PER_IMAGE_STATISTICS: dict[str, Callable[[Tensor], Tensor]] = {
    "signal_to_noise": signal_to_noise,  # of the gradients of the maps
    "price": estimate_removal_loss_changes,  # of the products of the maps with their gradients
}


class PerImageSums:
    """The sums of N filters over the pixels of each of B images.

    Args:
        statistic: one of `PER_IMAGE_STATISTICS`.
        image_count: the number of images, B.
        buffer: receives the statistic.
    """

    def __init__(self, statistic: str, image_count: int, buffer: FlatBuffer) -> None:
        self._reduce = PER_IMAGE_STATISTICS[statistic]
        self._row = buffer.row(statistic)
        self._values = torch.zeros(image_count, len(self._row), device=buffer.values.device)

    def slot(self, columns: slice) -> Tensor:
        """Return where the sums of a layer with these filters go: (B, C)."""
        return self._values[:, columns]

    def finalize(self) -> None:
        """Write the statistic to the buffer."""
        self._row.copy_(self._reduce(self._values))
