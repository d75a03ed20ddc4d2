"""The input on its way through the network, which tabs show. One per run, shared by all tabs."""

from __future__ import annotations

import time
from collections.abc import Callable

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.inspections import FilterlessModule, ImagePass
from revacnn_lightning.protocol.messages import Message, Refused
from revacnn_lightning.protocol.requests import InspectImage

from .run_state import RunState

__all__ = ["ImagePassFetcher"]

REQUEST_SECONDS = 2.0  # the training stops a few seconds after the last request
VISIBLE_SECONDS = 3.0  # tabs mark what they show more often than this
MAX_REQUESTS = 64  # whose replies are pending

Send = Callable[[InspectImage], str]  # returns the request id


class ImagePassFetcher:
    """Requests passes while a tab shows the network, and keeps the newest one.

    Attributes:
        newest: the newest pass; None before the first.
        modules: the modules between the layers, of structure `modules_version`.
        revision: incremented with every pass, and with every refusal.
        refused: why the training sends none; "" if it does.
    """

    def __init__(self) -> None:
        self.newest: ImagePass | None = None
        self.modules: list[FilterlessModule] = []
        self.modules_version = -1
        self.revision = 0
        self.refused = ""
        self._image: int | None = None
        self._last_visible = self._last_requested = float("-inf")
        self._requests: dict[str, int | None] = {}  # request id -> image

    def request_newest(self, image: int | None) -> ImagePass | None:
        """Request passes of a validation image, or of the current batch; return the newest pass.

        Tabs call this repeatedly: it expires after `VISIBLE_SECONDS`.
        """
        self._last_visible = time.monotonic()
        if image != self._image:
            self._image, self._last_requested = image, float("-inf")
        return self.newest

    @property
    def is_waiting(self) -> bool:
        """Whether the pass of another image than the newest was requested."""
        return self.newest is not None and self.newest.image_index != self._image

    def tick(self, state: RunState | None, send: Send) -> None:
        """Request passes while a tab shows them."""
        now = time.monotonic()
        structure = None if state is None else state.structure
        if structure is None or now - self._last_visible > VISIBLE_SECONDS:
            return
        if now - self._last_requested > REQUEST_SECONDS:
            self._last_requested = now
            try:
                request = send(InspectImage(self._image, self.modules_version))
            except ProtocolError as error:
                self.refused = str(error)
                return
            self._requests[request] = self._image
            while len(self._requests) > MAX_REQUESTS:
                del self._requests[next(iter(self._requests))]

    def receive(self, message: Message, state: RunState) -> None:
        """Store a pass, or the refusal of one."""
        if isinstance(message, ImagePass):
            self._receive_pass(message, state)
        elif isinstance(message, Refused) and message.id in self._requests:
            image = self._requests.pop(message.id)
            if image == self._image and message.reason != self.refused:
                self.refused = message.reason
                self.revision += 1

    def _receive_pass(self, message: ImagePass, state: RunState) -> None:
        structure = state.structure
        if structure is None or message.run != structure.run:
            return
        if message.version != structure.version:
            return  # of a network that is unknown or outdated
        if message.modules is not None:
            self.modules, self.modules_version = message.modules, message.version
        self.newest, self.refused = message, ""
        self.revision += 1
