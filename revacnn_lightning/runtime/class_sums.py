"""Means of pooled activation maps and gradients per class, over the last batches."""

from __future__ import annotations

import torch
from torch import Tensor

from revacnn_lightning.telemetry.inspection.pooled_maps import PooledMaps

__all__ = ["HALF_LIFE", "ClassSums"]

HALF_LIFE = 100  # batches, after which an image counts half
DECAY = 0.5 ** (1 / HALF_LIFE)


class ClassSums:
    """Sums over the images of C filters, for each of K classes, on the training device.

    An image weighs 1 in its batch and half as much `HALF_LIFE` batches later. Images whose values
    are not finite do not count. The memory is 4·(2·K·C + 2·C + 2·K) bytes.

    Args:
        filters: the number of filters, C.
        device: the device of the training.

    Attributes:
        filters: the number of filters, C.
        batches: the number of batches that were added.
    """

    def __init__(self, filters: int, device: torch.device) -> None:
        self.filters = filters
        self.batches = 0
        self._counts = torch.zeros(2, 0, device=device)  # of activations, of gradients
        self._sums = torch.zeros(2, 0, filters, device=device)
        self._squares = torch.zeros(2, filters, device=device)

    @property
    def class_count(self) -> int:
        """The number of classes K: one more than the largest class index so far."""
        return self._counts.shape[1]

    def add(self, labels: Tensor, pooled: PooledMaps) -> None:
        """Add the maps of a batch.

        Args:
            labels: int64 (B,) on the CPU, the class of each image; negative: none.
            pooled: the pooled maps and gradients of the same images.
        """
        missing = max(0, int(labels.max())) + 1 - self.class_count
        if missing > 0:
            self._counts = _padded(self._counts, 1, missing)
            self._sums = _padded(self._sums, 1, missing)
        self.batches += 1
        self._counts.mul_(DECAY)
        self._sums.mul_(DECAY)
        self._squares.mul_(DECAY)
        kept = labels >= 0
        at = labels.clamp_min(0).to(self._counts.device)
        weights = kept.float().to(self._counts.device)
        for kind, values in enumerate((pooled.mean_activations, pooled.gradient_sums)):
            if values is None:
                continue
            finite = values.isfinite().all(1)
            values = torch.where((finite & (weights > 0))[:, None], values, 0.0)
            self._counts[kind].index_add_(0, at, weights * finite)
            self._sums[kind].index_add_(0, at, values)
            self._squares[kind] += values.square().sum(0)

    def counts(self) -> Tensor:
        """Return the weight of all images of each class: (2, K), of activations and gradients."""
        return self._counts

    def class_means(self) -> Tensor:
        """Return the mean of each class: (2, K, C), NaN without an image."""
        return self._sums / self._counts[:, :, None]

    def overall_means(self) -> Tensor:
        """Return the mean over all images: (2, C), NaN without an image."""
        return self._sums.sum(1) / self._counts.sum(1)[:, None]

    def overall_mean_squares(self) -> Tensor:
        """Return the mean of the squares over all images: (2, C), NaN without an image."""
        return self._squares / self._counts.sum(1)[:, None]


def _padded(values: Tensor, dim: int, count: int) -> Tensor:
    """Return a tensor with zeros appended along a dimension."""
    shape = list(values.shape)
    shape[dim] = count
    return torch.cat([values, values.new_zeros(shape)], dim)
