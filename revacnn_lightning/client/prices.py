"""What removing each filter costs, by layer name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from revacnn_lightning.client.cheapest_filters import find_cheapest_filters
from revacnn_lightning.protocol.messages import Structure
from revacnn_lightning.protocol.prices import FilterPrices

__all__ = ["Prices"]


class Prices(Mapping[str, dict[str, np.ndarray]]):
    """What removing each filter costs: a mapping from layer name to NumPy arrays.

    Each array is float32 and has one value per filter, NaN where it is unknown:

    - ``estimate`` ranks the filters by the statistic ``price`` of the last batches. It is in the
      unit of the loss, but no prediction of it.
    - ``change`` is the predicted change of the loss if this filter alone is removed, measured by
      forwards without it, and ``error`` its standard error. They are known of the filters that
      there was time for.

    Coupled filters are removed together, and have one price.

    Attributes:
        version: the structure version that the filter indices refer to.
        step: the training batch after which the prices were sent.
        batches: number of batches that the estimates are the mean of.
        loss: the loss on the images of the newest measurement, with all filters; NaN if there is
            none.
        images: number of these images.
        oldest: the training batch of the oldest measured change; -1 if there is none.
        note: why no change can be measured; "" if it can.
    """

    def __init__(self, message: FilterPrices, structure: Structure, layer: str | None) -> None:
        self._message, self._structure = message, structure
        self.version, self.step = message.version, message.step
        self.batches, self.note, self.oldest = message.batches, message.note, message.oldest
        self.loss, self.images = message.loss, message.images
        widths = [len(one.filter_ids) for one in structure.layers]
        self._offsets = np.cumsum([0, *widths])
        self._index_of = {
            one.name: index
            for index, one in enumerate(structure.layers)
            if layer in (None, one.name)
        }

    @staticmethod
    def matches_structure(message: FilterPrices, structure: Structure) -> bool:
        """Return whether a message has one price for each filter of a structure."""
        filters = sum(len(layer.filter_ids) for layer in structure.layers)
        arrays = (message.estimates, message.changes, message.errors)
        return all(array.shape == (filters,) for array in arrays)

    def cheapest(self, count: int) -> dict[str, list[int]]:
        """Return the filters that cost least to remove: layer name -> indices.

        They are those that *Remove* in the page stages. The measured changes decide once all of
        them are known, and the estimates until then. Coupled filters count once, each layer keeps
        a filter, and layers that cannot be edited are left out. There may be fewer than ``count``.
        """
        others = [one.name for one in self._structure.layers if one.name not in self]
        chosen = find_cheapest_filters(self._message, self._structure, self._offsets, count, others)
        filters: dict[str, list[int]] = {}
        for layer, filter_id in chosen:
            ids = self._structure.layers[self._index_of[layer]].filter_ids
            filters.setdefault(layer, []).append(ids.index(filter_id))
        return {layer: sorted(indices) for layer, indices in filters.items()}

    def __getitem__(self, layer: str) -> dict[str, np.ndarray]:
        if layer not in self._index_of:
            raise KeyError(f"{layer}: the layers are {', '.join(self) or 'none'}")
        first, last = self._offsets[self._index_of[layer] :][:2]
        message = self._message
        return {
            "estimate": message.estimates[first:last],
            "change": message.changes[first:last],
            "error": message.errors[first:last],
        }

    def __iter__(self) -> Iterator[str]:
        return iter(self._index_of)

    def __len__(self) -> int:
        return len(self._index_of)

    def __eq__(self, other: object) -> bool:
        return self is other  # a comparison of all arrays is nobody's intention

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        changes = [values["change"] for values in self.values()]
        measured = sum(int(np.isfinite(one).sum()) for one in changes)
        return (
            f"<Prices of batch {self.step}: {len(self)} layers, {measured} of "
            f"{sum(map(len, changes))} filters measured>"
        )
