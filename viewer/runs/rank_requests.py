"""Requests what each rank of a run has recorded of a layer, while a tab shows it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.messages import Message
from revacnn_lightning.protocol.rank_messages import RankValues
from revacnn_lightning.protocol.requests import InspectRanks

from .run_state import RunState

__all__ = ["LayerRankStatisticsFetcher"]

log = logging.getLogger(__name__)

REQUEST_SECONDS = 4.0  # the training stops a few seconds after the last request
VISIBLE_SECONDS = 3.0  # tabs mark what they show more often than this

Send = Callable[[InspectRanks], str]  # returns the request id


class LayerRankStatisticsFetcher:
    """Requests the values of one layer in each rank. One per run, shared by all tabs.

    Attributes:
        newest: the newest statistics of the ranks; None before the first.
    """

    def __init__(self) -> None:
        self.newest: RankValues | None = None
        self._last_visible = self._last_requested = float("-inf")
        self._layer = self._requested_layer = ""

    def keep_requesting(self, layer: str) -> None:
        """Request the values of this layer for the next seconds. Tabs call this repeatedly."""
        self._last_visible, self._layer = time.monotonic(), layer

    def tick(self, state: RunState | None, send: Send) -> None:
        """Request the values while a tab shows them."""
        now = time.monotonic()
        if state is None or not self._layer or now - self._last_visible > VISIBLE_SECONDS:
            return
        is_renewed = now - self._last_requested <= REQUEST_SECONDS
        if is_renewed and self._layer == self._requested_layer:
            return
        self._last_requested, self._requested_layer = now, self._layer
        try:
            send(InspectRanks(self._layer))
        except ProtocolError as error:
            log.info("Cannot request the values of each rank: %s", error)

    def receive(self, message: Message) -> None:
        """Receive a message of the run."""
        if isinstance(message, RankValues):
            self.newest = message
