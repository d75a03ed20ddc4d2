"""Inspections of the filters that tabs show: top images and attribution. One set per run."""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec import Struct

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.inspections import FilterInspection
from revacnn_lightning.protocol.messages import Message, Refused, Structure
from revacnn_lightning.protocol.requests import InspectFilter

from .run_state import RunState

__all__ = ["FilterInspectionFetcher", "FilterInspectionRecord"]

REQUEST_SECONDS = 2.0  # the training stops a few seconds after the last request
VISIBLE_SECONDS = 3.0  # tabs mark what they show more often than this
KEPT_SECONDS = 60.0  # how long the inspection of a hidden filter is kept
MAX_REQUESTS = 64  # whose replies are pending

Key = tuple[str, int]  # layer, filter id
Send = Callable[[InspectFilter, int], str]  # request, structure version -> request id


class FilterInspectionRecord(Struct):
    """The inspection of one filter, and when tabs requested and showed it.

    Attributes:
        inspection: the newest inspection; None before the first.
        image: index of the image to inspect; None for the current batch.
        depth: the depth of the slice to show of volumes, as in `InspectFilter`.
        ascent: number of the search of the image that the filter responds to most.
        refused: why the training refuses the inspection; "" if it does not.
        last_visible: when a tab last showed the filter (monotonic).
        last_requested: when the inspection was last requested (monotonic).
        version: the version of the structure for which it was last requested.
    """

    inspection: FilterInspection | None = None
    image: int | None = None
    depth: float = 0.5
    ascent: int = 1
    refused: str = ""
    last_visible: float = 0.0
    last_requested: float = 0.0
    version: int = -1


class FilterInspectionFetcher:
    """Requests inspections of the visible filters and keeps the results."""

    def __init__(self) -> None:
        self._filters: dict[Key, FilterInspectionRecord] = {}
        self._requests: dict[str, tuple[Key, int]] = {}  # request id -> filter, version

    def request_newest(
        self, layer: str, filter_id: int, image: int | None, depth: float = 0.5
    ) -> FilterInspectionRecord:
        """Request inspections of a filter that a tab shows; return what is known about it.

        Tabs call this repeatedly: it expires after `VISIBLE_SECONDS`.
        """
        filter_ = self._filters.setdefault((layer, filter_id), FilterInspectionRecord())
        filter_.last_visible = time.monotonic()
        if (filter_.image, filter_.depth) != (image, depth):
            filter_.image, filter_.depth, filter_.last_requested = image, depth, 0.0
        return filter_

    def has_volume_inputs(self, layer: str, filter_id: int) -> bool:
        """Return whether the inputs of a filter are volumes, which are shown as slices."""
        filter_ = self._filters.get((layer, filter_id))
        inspection = None if filter_ is None else filter_.inspection
        return inspection is not None and inspection.volume is not None

    def restart_activation_maximization(self, layer: str, filter_id: int) -> None:
        """Optimize the image that activates a filter most again, from the beginning."""
        filter_ = self._filters.get((layer, filter_id))
        if filter_ is not None:
            filter_.ascent, filter_.last_requested = filter_.ascent + 1, 0.0

    def tick(self, state: RunState | None, send: Send) -> None:
        """Request inspections of visible filters, and drop those not shown for long."""
        now = time.monotonic()
        structure = None if state is None else state.structure
        for key, filter_ in list(self._filters.items()):
            index = None if structure is None else _filter_index(structure, key)
            hidden_seconds = now - filter_.last_visible
            if hidden_seconds > KEPT_SECONDS or (structure is not None and index is None):
                del self._filters[key]
            if structure is None or index is None or hidden_seconds > VISIBLE_SECONDS:
                continue
            is_due = now - filter_.last_requested > REQUEST_SECONDS
            if is_due or filter_.version != structure.version:
                filter_.last_requested, filter_.version = now, structure.version
                request = InspectFilter(key[0], index, filter_.image, filter_.ascent, filter_.depth)
                self._request(key, filter_, request, send)

    def receive(self, message: Message, state: RunState) -> None:
        """Store an inspection, or the refusal of one."""
        if isinstance(message, FilterInspection):
            self._receive_inspection(message, state.structure)
        elif isinstance(message, Refused) and message.id in self._requests:
            key, version = self._requests.pop(message.id)
            filter_ = self._filters.get(key)
            # After an edit, the inspection is requested again.
            if filter_ is not None and message.version == version:
                filter_.refused = message.reason

    def _request(
        self, key: Key, filter_: FilterInspectionRecord, request: InspectFilter, send: Send
    ) -> None:
        try:
            self._requests[send(request, filter_.version)] = key, filter_.version
        except ProtocolError as error:
            filter_.refused = str(error)
        while len(self._requests) > MAX_REQUESTS:
            del self._requests[next(iter(self._requests))]

    def _receive_inspection(self, message: FilterInspection, structure: Structure | None) -> None:
        if structure is None or (message.run, message.version) != (
            structure.run,
            structure.version,
        ):
            return  # of a network that is unknown or outdated
        for layer in structure.layers:
            if layer.name == message.layer and 0 <= message.filter < len(layer.filter_ids):
                filter_ = self._filters.get((layer.name, layer.filter_ids[message.filter]))
                if filter_ is not None:
                    filter_.inspection, filter_.refused = message, ""


def _filter_index(structure: Structure, key: Key) -> int | None:
    for layer in structure.layers:
        if layer.name == key[0] and key[1] in layer.filter_ids:
            return layer.filter_ids.index(key[1])
    return None
