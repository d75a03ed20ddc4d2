"""Requests what verdicts on the layers follow from, while a tab shows them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.requests import InspectEvidence

from .run_state import RunState

__all__ = ["VerdictEvidenceFetcher"]

log = logging.getLogger(__name__)

REQUEST_SECONDS = 4.0  # the training stops a few seconds after the last request
VISIBLE_SECONDS = 3.0  # tabs mark what they show more often than this

Send = Callable[[InspectEvidence], str]  # returns the request id


class VerdictEvidenceFetcher:
    """Requests evidence while a tab shows verdicts. One per run, shared by all tabs.

    What arrives is in `RunState.verdicts`. A run that refuses keeps the verdicts that follow from
    its statistics alone.
    """

    def __init__(self) -> None:
        self._last_visible = self._last_requested = float("-inf")
        self._layer = ""

    def keep_requesting(self, layer: str = "") -> None:
        """Request evidence for the next seconds. Tabs call this repeatedly.

        Args:
            layer: to examine first, the next time; "" for any.
        """
        self._last_visible = time.monotonic()
        self._layer = layer or self._layer

    def tick(self, state: RunState | None, send: Send) -> None:
        """Request evidence while a tab shows verdicts."""
        now = time.monotonic()
        if state is None or state.structure is None or now - self._last_visible > VISIBLE_SECONDS:
            return
        if now - self._last_requested <= REQUEST_SECONDS:
            return
        self._last_requested = now
        known = {layer.name for layer in state.structure.layers}
        layer, self._layer = self._layer if self._layer in known else "", ""
        try:
            send(InspectEvidence(layer))
        except ProtocolError as error:
            log.info("Cannot request what verdicts follow from: %s", error)
