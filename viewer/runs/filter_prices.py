"""What removing each filter costs, which tabs show. One per run, shared by all tabs."""

from __future__ import annotations

import time
from collections.abc import Callable

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.messages import Message, Refused
from revacnn_lightning.protocol.prices import FilterPrices
from revacnn_lightning.protocol.requests import InspectPrices

from .run_state import RunState

__all__ = ["FilterPriceFetcher"]

REQUEST_SECONDS = 2.0  # the training stops a few seconds after the last request
VISIBLE_SECONDS = 3.0  # tabs mark what they show more often than this

Send = Callable[[InspectPrices], str]  # returns the request id


class FilterPriceFetcher:
    """Requests prices while a tab shows them, and keeps the newest ones.

    Attributes:
        newest: the newest prices of the present structure; None before the first.
        revision: incremented with every message, and with every refusal.
        refused: why the training sends none; "" if it does.
    """

    def __init__(self) -> None:
        self.newest: FilterPrices | None = None
        self.revision = 0
        self.refused = ""
        self._last_visible = self._last_requested = float("-inf")
        self._request = ""

    def request_newest(self) -> FilterPrices | None:
        """Request prices for the next seconds; return the newest. Tabs call this repeatedly."""
        self._last_visible = time.monotonic()
        return self.newest

    def tick(self, state: RunState | None, send: Send) -> None:
        """Request prices while a tab shows them."""
        now = time.monotonic()
        if state is None or state.structure is None or now - self._last_visible > VISIBLE_SECONDS:
            return
        if now - self._last_requested > REQUEST_SECONDS:
            self._last_requested = now
            try:
                self._request = send(InspectPrices())
            except ProtocolError as error:
                self._refuse(str(error))

    def receive(self, message: Message, state: RunState) -> None:
        """Store prices, or the refusal of them."""
        structure = state.structure
        known = None if self.newest is None else self.newest.version
        if structure is not None and known not in (None, structure.version):
            self.newest = None
            self.revision += 1
        if isinstance(message, Refused) and message.id == self._request:
            self._refuse(message.reason)
        elif isinstance(message, FilterPrices) and structure is not None:
            is_current = (message.run, message.version) == (structure.run, structure.version)
            if is_current and len(message.estimates) == state.n_filters:
                self.newest, self.refused = message, ""
                self.revision += 1

    def _refuse(self, reason: str) -> None:
        if reason != self.refused:
            self.refused = reason
            self.revision += 1
