"""Which of the filters that an edit has added reach a consumer, and which are silent there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from revacnn_lightning.steering.tracing.records import ParameterDimension

__all__ = ["ZeroNewFilterDetector"]


class ZeroNewFilterDetector:
    """Records which new filters are zero wherever later layers read them.

    A sum of convs has one filter of each at a position, and consumers read the label of one of
    them. It stands for all: what is read there is their sum.

    Args:
        new_filters: (tensor, dim, index) of every new filter.
        dimensions: the dimensions of all tensors.
        channel_count: the number of channels.
    """

    def __init__(
        self,
        new_filters: Iterable[tuple[str, int, int]],
        dimensions: Sequence[ParameterDimension],
        channel_count: int,
    ) -> None:
        starts = {(each.tensor, each.dim): each.start for each in dimensions}
        self._is_new = np.zeros(channel_count, bool)
        for name, dim, index in new_filters:
            self._is_new[starts[name, dim] + index] = True
        self._is_read = np.zeros(channel_count, bool)
        self._is_active = np.zeros(channel_count, bool)

    def are_new_filters(self, label: Tensor) -> Tensor:
        """Return which channels of a label are those of new filters, in the label's shape."""
        flat = label.reshape(-1).numpy()
        inside = flat < len(self._is_new)
        is_new = inside & self._is_new[np.where(inside, flat, 0)]
        return torch.from_numpy(is_new).reshape(label.shape)

    @property
    def has_new_filters(self) -> bool:
        """Whether there are new filters."""
        return bool(self._is_new.any())

    def record(self, x: Tensor, dim: int, channels: Tensor) -> None:
        """Record which new filters are not zero everywhere in ``x``, (…, channels, …)."""
        if not self.has_new_filters:
            return
        flat = channels.numpy()
        at = np.flatnonzero(self.are_new_filters(channels).numpy())
        if len(at):
            part = x.index_select(dim, torch.from_numpy(at).to(x.device))
            nonzero = (part != 0).movedim(dim, 0).flatten(1).any(1).cpu().numpy()
            self._is_read[flat[at]] = True
            self._is_active[flat[at[nonzero]]] = True

    def silent_channels(self) -> np.ndarray:
        """Return the channels that consumers read as zeros only."""
        return np.flatnonzero(self._is_read & ~self._is_active)
