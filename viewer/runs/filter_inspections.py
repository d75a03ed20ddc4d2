"""The filters of which some tab shows what they look for, and what the training tells of them.

One per run. Nothing is asked for a filter that no tab shows.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec import Struct

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.messages import FilterInspection, Message, Refused, Structure
from revacnn_lightning.protocol.requests import InspectFilter

from .run_state import RunState

__all__ = ["FilterInspectionState", "FilterInspections"]

ASK_SECONDS = 2.0  # the training's interest ends some seconds after the last request
SHOWN_SECONDS = 3.0  # a tab that shows a filter says so at least this often
KEPT_SECONDS = 60.0  # what is known of a filter that nobody shows
MOST_REQUESTS = 64  # whose answers are waited for

Key = tuple[str, int]  # layer, id of the filter
Ask = Callable[[InspectFilter, int], str]  # request, structure version -> id of the request


class FilterInspectionState(Struct):
    """What is known of a filter.

    Attributes:
        inspection: the newest, None before the first.
        image: of the validation data in which it is looked at; None: of the current batch.
        refused: why the training sends nothing.
        shown, asked: when a tab last showed it, when it was last asked for (monotonic).
        version: of the structure for which it was asked for.
    """

    inspection: FilterInspection | None = None
    image: int | None = None
    refused: str = ""
    shown: float = 0.0
    asked: float = 0.0
    version: int = -1


class FilterInspections:
    """Asks for inspections, and holds them."""

    def __init__(self) -> None:
        self._filters: dict[Key, FilterInspectionState] = {}
        self._requests: dict[str, tuple[Key, int]] = {}  # id of a request -> filter, version

    def show(self, layer: str, filter_id: int, image: int | None) -> FilterInspectionState:
        """What this filter looks for is visible in a tab, in this image. To be repeated."""
        known = self._filters.setdefault((layer, filter_id), FilterInspectionState())
        known.shown = time.monotonic()
        if known.image != image:
            known.image, known.asked = image, 0.0
        return known

    def tick(self, state: RunState | None, ask: Ask) -> None:
        """Ask for what is shown. Never waits."""
        now = time.monotonic()
        structure = None if state is None else state.structure
        for key, known in list(self._filters.items()):
            index = None if structure is None else _index(structure, key)
            unseen = now - known.shown
            if unseen > KEPT_SECONDS or (structure is not None and index is None):
                del self._filters[key]
            if structure is None or index is None or unseen > SHOWN_SECONDS:
                continue
            if now - known.asked > ASK_SECONDS or known.version != structure.version:
                known.asked, known.version = now, structure.version
                self._ask(key, known, InspectFilter(key[0], index, known.image), ask)

    def take(self, message: Message, state: RunState) -> None:
        """Take over an inspection, or a refusal to send any."""
        if isinstance(message, FilterInspection):
            self._take_inspection(message, state.structure)
        elif isinstance(message, Refused) and message.id in self._requests:
            key, version = self._requests.pop(message.id)
            known = self._filters.get(key)
            # One for a network that was edited meanwhile is asked for again anyway.
            if known is not None and message.version == version:
                known.refused = message.reason

    def _ask(
        self, key: Key, known: FilterInspectionState, request: InspectFilter, ask: Ask
    ) -> None:
        try:
            self._requests[ask(request, known.version)] = key, known.version
        except ProtocolError as error:
            known.refused = str(error)
        while len(self._requests) > MOST_REQUESTS:
            del self._requests[next(iter(self._requests))]

    def _take_inspection(self, message: FilterInspection, structure: Structure | None) -> None:
        if structure is None or (message.run, message.version) != (
            structure.run,
            structure.version,
        ):
            return  # of a network that is not known yet, or no longer there
        for layer in structure.layers:
            if layer.name == message.layer and 0 <= message.filter < len(layer.filter_ids):
                known = self._filters.get((layer.name, layer.filter_ids[message.filter]))
                if known is not None:
                    known.inspection, known.refused = message, ""


def _index(structure: Structure, key: Key) -> int | None:
    for layer in structure.layers:
        if layer.name == key[0] and key[1] in layer.filter_ids:
            return layer.filter_ids.index(key[1])
    return None
