"""What removing filters of a run costs, and removals from several layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from revacnn_lightning.client.prices import Prices
from revacnn_lightning.client.run_classes import RunClassStatistics
from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.messages import Applied, Message, Structure
from revacnn_lightning.protocol.prices import FilterPrices
from revacnn_lightning.protocol.requests import InspectPrices, RemoveFilters

__all__ = ["RunPrices"]

MAX_WANTED = 64  # filters that a run measures first


class RunPrices(RunClassStatistics):
    """Prices of all filters. `RunRequests.plan` returns that of a single edit."""

    def prices(
        self, layer: str | None = None, *, batches: int = 5, timeout: float = 60.0
    ) -> Prices:
        """Return what removing each filter costs, of one layer or of all.

        ::

            prices = run.prices()
            print(prices["conv2"]["estimate"], prices["conv2"]["change"])
            run.remove_filters(prices.cheapest(8), version=prices.version)

        All filters are ranked. The change of the loss is measured filter by filter, within 2 % of
        the time of the training, and only for a few seconds after each call: a later call returns
        more of them.

        Args:
            layer: the layer whose filters are measured first and returned; None returns all layers.
            batches: minimum number of batches that the ranking is the mean of, up to 10.
            timeout: seconds to wait. The run skips batches if the cost exceeds ``max_overhead``.

        Raises as `apply` does; `EditRefusedError` also if the network has no such layer, or the run
        is paused before it has trained enough batches.
        """
        structure = self._network(timeout)
        width = 0 if layer is None else len(_filter_ids(structure, layer))

        def priced(message: Message) -> Structure | None:
            if not isinstance(message, FilterPrices) or message.batches < min(batches, 10):
                return None
            known = self._structures.get(message.version)
            return known if known is not None and Prices.matches_structure(message, known) else None

        body = InspectPrices(layer or "", list(range(min(width, MAX_WANTED))))
        found = self._repeat_until(
            body, lambda message: priced(message) is not None, "prices of filters", timeout
        )
        known = priced(found)
        assert isinstance(found, FilterPrices)
        assert known is not None
        return Prices(found, known, layer)

    def remove_filters(
        self,
        filters: Mapping[str, Sequence[int]],
        *,
        version: int | None = None,
        timeout: float = 60.0,
    ) -> list[Applied]:
        """Remove filters of several layers, by one edit per layer; return the replies.

        The indices are those before the first edit. A filter that is coupled with one that an
        earlier of these edits has removed is gone, and is not removed again.

        Args:
            filters: layer name -> indices, such as `Prices.cheapest` returns.
            version: the structure version that they refer to, as for `apply`.
            timeout: seconds to wait for each edit.

        Raises as `apply` does. The edits before the refused one stay.
        """
        newest = self._network(timeout)
        structure = newest if version is None else self._structures.get(version)
        if structure is None:
            raise EditRefusedError(f"structure {version} is not known: request the prices again")
        ids = {name: _ids_at(structure, name, indices) for name, indices in filters.items()}
        replies: list[Applied] = []
        for name, wanted in ids.items():
            present = _filter_ids(structure, name)
            indices = [index for index, id_ in enumerate(present) if id_ in wanted]
            if indices:
                edit = RemoveFilters(name, indices)
                replies.append(self.apply(edit, version=structure.version, timeout=timeout))
                structure = self.structure or structure
        return replies


def _filter_ids(structure: Structure, name: str) -> list[int]:
    for layer in structure.layers:
        if layer.name == name:
            return layer.filter_ids
    names = ", ".join(layer.name for layer in structure.layers)
    raise EditRefusedError(f"there is no layer {name!r}; the layers are {names}")


def _ids_at(structure: Structure, name: str, indices: Sequence[int]) -> set[int]:
    ids = _filter_ids(structure, name)
    if not all(0 <= index < len(ids) for index in indices):
        raise EditRefusedError(f"{name} has {len(ids)} filters; check the indices")
    return {ids[index] for index in indices}
