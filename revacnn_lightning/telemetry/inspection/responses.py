"""The strongest response of each inspected filter to each image of a batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["FilterPeakResponses", "ResponseRecorder"]


@dataclass
class FilterPeakResponses:
    """The strongest response of one filter to each of B images.

    Attributes:
        peaks: float32 (2, B) on the training device: the maximum of the filter's map of each
            image, and its position as ``row * W + column``.
        map_size: (H, W) of the map.
    """

    peaks: Tensor
    map_size: tuple[int, int]


class ResponseRecorder:
    """Records the strongest response of the selected filters to each image of a batch.

    Filters that are not selected cost nothing.
    """

    def __init__(self) -> None:
        self._selected: dict[str, set[int]] = {}
        self._responses: dict[tuple[str, int], FilterPeakResponses] = {}
        self._is_recording = False

    @property
    def filters(self) -> frozenset[tuple[str, int]]:
        """(layer, index) of the selected filters."""
        return frozenset((layer, i) for layer, some in self._selected.items() for i in some)

    @property
    def layers(self) -> frozenset[str]:
        """The layers of the selected filters."""
        return frozenset(self._selected)

    def select(self, filters: Collection[tuple[str, int]]) -> None:
        """Record these filters, (layer, index), and no others from the next batch on."""
        selected = defaultdict(set)
        for layer, index in filters:
            selected[layer].add(index)
        self._selected = dict(selected)

    def begin_batch(self, is_sampled: bool) -> None:
        """Discard the previous batch; record this one if it is sampled."""
        self._is_recording = is_sampled and bool(self._selected)
        self._responses = {}

    def needs_map(self, layer: str) -> bool:
        """Return whether `add_map` is needed for this layer on this batch."""
        return self._is_recording and layer in self._selected

    def add_map(self, layer: str, maps: Tensor) -> None:
        """Reduce activation maps (B, C, H, W). Of several calls in a batch the first counts."""
        with torch.no_grad():
            for index in self._selected[layer]:
                is_known = (layer, index) in self._responses
                if is_known or index >= maps.shape[1] or not maps.numel():
                    continue
                maximum, position = maps.detach()[:, index].flatten(1).max(1)
                peaks = torch.stack([maximum.float(), position.float()])
                self._responses[layer, index] = FilterPeakResponses(
                    peaks, (maps.shape[2], maps.shape[3])
                )

    def pop_responses(self) -> dict[tuple[str, int], FilterPeakResponses]:
        """Return the responses of the batch that has ended, by (layer, index)."""
        responses, self._responses = self._responses, {}
        return responses
