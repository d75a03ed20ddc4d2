"""The input and the outputs of the network, left and right of its layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from revacnn_lightning.protocol.inspections import ImagePass

from ..layout import InputOutputPlacement
from ..layout.boxes import Box
from ..rendering.frame_codec import FilterImagesPartContent
from ..rendering.palette import Palette
from ..tab.shown_input import request_shown_image_pass
from ..tab.tab_state import TabState
from .input_output_data import (
    channel_tooltips,
    class_probability_rows,
    describe_input,
    describe_output,
    input_and_generated_images,
    input_signal,
)
from .network import NetworkView

__all__ = ["InputOutputView"]

NO_PICTURE = np.zeros((0, 1, 1, 3), np.uint8)
HEADER_Y = 12.0  # px, where each layer has its header right above its column
NONE: dict[str, Any] = {}


class InputOutputView:
    """Shows the newest pass of an image where the network view has left space for it."""

    def __init__(self, tab: TabState, network: NetworkView) -> None:
        self.tab = tab
        self._network = network
        self.root = self.source = FilterImagesPartContent("ends")
        self._shown: tuple[Any, ...] = ()
        self._drawn: ImagePass | None = None

    def restyle(self, palette: Palette) -> None:
        """Do nothing: the page draws in its own colors."""

    def update(self) -> bool:
        """Show a new pass, or the same one at other places."""
        tab, placement = self.tab, self._network.input_output
        if tab.main_view != "network":
            return False
        image_pass, passes = request_shown_image_pass(tab), tab.follower.image_passes
        own, refusal = tab.follower.own_images, self._refusal()
        key = (placement, passes.revision, passes.is_waiting, refusal, own.revision)
        if key == self._shown:
            return False
        self._shown = key
        if image_pass is not self._drawn or self.root.atlas is None:
            self._drawn = image_pass
            self.root.atlas = (
                NO_PICTURE if image_pass is None else input_and_generated_images(image_pass)
            )
        self.root.data = NONE if placement is None else self._content(placement, image_pass)
        return True

    def _content(
        self, placement: InputOutputPlacement, image_pass: ImagePass | None
    ) -> dict[str, Any]:
        layout, passes = self._network.network_layout.data, self.tab.follower.image_passes
        state = self.tab.state
        snapshot = None if state is None else state.snapshot
        n = len(placement.channel_y)
        return {
            "header_y": layout.get("header_y", HEADER_Y),
            "input_x": placement.input_x,
            "left": placement.left,
            "right": placement.right,
            "has_words": placement.has_words,
            "picture": _edges(placement.picture),
            "generated": None if placement.generated is None else _edges(placement.generated),
            "signal": np.zeros((0, 0), np.float32)
            if image_pass is None
            else input_signal(image_pass),
            "input": {
                **describe_input(image_pass, self._refusal(), is_waiting=passes.is_waiting),
                "paint": self._paint_facts(),
            },
            "channel_x": placement.channel_x,
            "channel_y": placement.channel_y.tolist(),
            "channels": [] if image_pass is None else channel_tooltips(image_pass, n),
            "output": describe_output(image_pass, None if snapshot is None else snapshot.loss),
            "output_x": placement.output_x,
            "output_y": placement.output_y.tolist(),
            "rows": [] if image_pass is None else class_probability_rows(image_pass),
        }

    def _refusal(self) -> str:
        """Return why the input, or the image that was selected last, is not shown; "" if it is."""
        follower = self.tab.follower
        return follower.image_passes.refused or follower.layer_details.image_refusal

    def _paint_facts(self) -> dict[str, Any]:
        """Return what is under the paint of the shown image, and why an image was refused."""
        image, own = self.tab.follower.layer_details.image, self.tab.follower.own_images
        origin = own.unpainted_image(image)
        return {
            "origin": "batch" if origin is None else str(origin),
            "is_painted": own.is_painted(image),
            "is_waiting": self.tab.follower.image_passes.is_waiting,
            "refused": own.refused,
        }


def _edges(box: Box) -> list[float]:
    return [box.left, box.top, box.right, box.bottom]
