"""The ends of the network view: the input on the left, the outputs on the right."""

from __future__ import annotations

from typing import Any

import numpy as np

from revacnn_lightning.protocol.inspections import ImagePass

from ..layout import Ends
from ..layout.boxes import Box
from ..rendering.frame_codec import SpritePart
from ..rendering.palette import Palette
from ..tab.shown_input import shown_pass
from ..tab.tab_state import TabState
from . import end_data
from .network import NetworkView

__all__ = ["NetworkEnds"]

NO_PICTURE = np.zeros((0, 1, 1, 3), np.uint8)
HEADER_Y = 12.0  # px, where each layer has its header right above its column
NONE: dict[str, Any] = {}


class NetworkEnds:
    """Shows the newest pass at the places that the network view has found for it."""

    def __init__(self, tab: TabState, network: NetworkView) -> None:
        self.tab = tab
        self._network = network
        self.root = self.source = SpritePart("ends")
        self._shown: tuple[Any, ...] = ()
        self._drawn: ImagePass | None = None

    def restyle(self, palette: Palette) -> None:
        """Do nothing: the page draws in its own colors."""

    def update(self) -> bool:
        """Show a new pass, or the same one at other places."""
        tab, ends = self.tab, self._network.ends
        if tab.main_view != "network":
            return False
        passed, passes = shown_pass(tab), tab.follower.image_passes
        own, refusal = tab.follower.own_images, self._refusal()
        key = (ends, passes.revision, passes.is_waiting, refusal, own.revision)
        if key == self._shown:
            return False
        self._shown = key
        if passed is not self._drawn or self.root.atlas is None:
            self._drawn = passed
            self.root.atlas = NO_PICTURE if passed is None else end_data.picture(passed)
        self.root.data = NONE if ends is None else self._content(ends, passed)
        return True

    def _content(self, ends: Ends, passed: ImagePass | None) -> dict[str, Any]:
        layout, passes = self._network.network_layout.data, self.tab.follower.image_passes
        state = self.tab.state
        snapshot = None if state is None else state.snapshot
        n = len(ends.channel_y)
        return {
            "header_y": layout.get("header_y", HEADER_Y),
            "input_x": ends.input_x,
            "left": ends.left,
            "right": ends.right,
            "has_words": ends.has_words,
            "picture": _edges(ends.picture),
            "generated": None if ends.generated is None else _edges(ends.generated),
            "signal": np.zeros((0, 0), np.float32) if passed is None else end_data.signal(passed),
            "input": {
                **end_data.input_facts(passed, self._refusal(), is_waiting=passes.is_waiting),
                "paint": self._paint_facts(),
            },
            "channel_x": ends.channel_x,
            "channel_y": ends.channel_y.tolist(),
            "channels": [] if passed is None else end_data.channel_rows(passed, n),
            "output": end_data.output_facts(passed, None if snapshot is None else snapshot.loss),
            "output_x": ends.output_x,
            "output_y": ends.output_y.tolist(),
            "rows": [] if passed is None else end_data.output_rows(passed),
        }

    def _refusal(self) -> str:
        """Return why the input, or the image that was selected last, is not shown; "" if it is."""
        follower = self.tab.follower
        return follower.image_passes.refused or follower.layer_details.image_refusal

    def _paint_facts(self) -> dict[str, Any]:
        """Return what is under the paint of the shown image, and why an image was refused."""
        image, own = self.tab.follower.layer_details.image, self.tab.follower.own_images
        origin = own.origin(image)
        return {
            "origin": "batch" if origin is None else str(origin),
            "is_painted": own.is_painted(image),
            "is_waiting": self.tab.follower.image_passes.is_waiting,
            "refused": own.refused,
        }


def _edges(box: Box) -> list[float]:
    return [box.left, box.top, box.right, box.bottom]
