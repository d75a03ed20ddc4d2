"""Where one more filter would lower the loss most, as tabs have requested it. One per run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.growth import GrowthGains
from revacnn_lightning.protocol.messages import Message, Refused
from revacnn_lightning.protocol.requests import InspectGrowth

from .run_state import RunState

__all__ = ["GrowthGainFetcher"]

Send = Callable[[InspectGrowth], str]  # returns the request id


class GrowthGainFetcher:
    """Requests the growth gains once per click, and keeps the newest ones.

    Attributes:
        newest: the newest gains of the present structure; None before the first.
        is_pending: whether they were requested and have not arrived.
        refused: why there are none; "" if there are.
    """

    def __init__(self) -> None:
        self.newest: GrowthGains | None = None
        self.is_pending = False
        self.refused = ""
        self._is_wanted = False
        self._request = ""

    def request(self) -> None:
        """Request the growth gains of all layers at the next tick."""
        self._is_wanted, self.is_pending, self.refused = True, True, ""

    def tick(self, send: Send) -> None:
        """Send the request, if there is one to send."""
        if self._is_wanted:
            self._is_wanted = False
            try:
                self._request = send(InspectGrowth())
            except ProtocolError as error:
                self.is_pending, self.refused = False, str(error)

    def receive(self, message: Message, state: RunState) -> None:
        """Store gains, or the refusal of them; discard those of another structure."""
        structure = state.structure
        if structure is not None and self.newest and self.newest.version != structure.version:
            self.newest = None
        if isinstance(message, Refused) and message.id == self._request:
            self.is_pending, self.refused = False, message.reason
        elif isinstance(message, GrowthGains) and structure is not None:
            self.is_pending = False
            is_current = (message.run, message.version) == (structure.run, structure.version)
            if not is_current or len(message.gains) != len(structure.layers):
                return
            if self.newest is None or np.isfinite(message.gains).any():
                self.newest = message
            else:  # those before are still the newest
                self.refused = next(filter(None, message.notes), "")
