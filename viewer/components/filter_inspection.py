"""What the selected filter looks for: training images that excite it, and what in one does."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.core.properties import without_property_validation

from revacnn_lightning.protocol.messages import FilterInspection, TopImage

from ..rendering.formatting import format_number
from ..rendering.frame_codec import FramePart
from ..rendering.palette import Palette
from ..rendering.thumbnails import attribution_tile, image_tile
from ..tab.tab_state import TabState

__all__ = ["FilterInspectionPane"]

NO_FINDS = "no image has excited it since it was opened"
WAITING = "waiting for the training's next batch"
OVER = "not looked at before the run ended"


class FilterInspectionPane:
    """Shown, and asked for, only while its pane is open."""

    def __init__(self, tab: TabState) -> None:
        self.tab = tab
        self.root = self.source = FramePart("looks")
        self._shown: tuple[Any, ...] = ()

    def restyle(self, palette: Palette) -> None:
        """Nothing to do: pictures have their own colours."""

    @without_property_validation
    def update(self) -> bool:
        tab = self.tab
        if tab.pane != "looks" or tab.selection is None or tab.selected() is None:
            return False
        layer, filter_id = tab.selection.layer, tab.selection.filter_id
        image = tab.follower.layer_details.selected_image(layer)
        known = tab.follower.inspections.mark_visible(layer, filter_id, image)
        sent = known.inspection
        of = None if sent is None else (sent.version, sent.step, sent.image_index)
        why = known.refused or (OVER if tab.over() else "")
        key = (tab.state, layer, filter_id, image, of, why)
        if key == self._shown:
            return False
        self._shown = key
        if sent is None:
            self.root.data = {"status": why or WAITING, "busy": not why}
            return True
        self.root.data = {
            "status": known.refused,
            "busy": sent.image_index != image and not why,
            **_finds(sent),
            **_image(sent),
        }
        return True


def _finds(sent: FilterInspection) -> dict[str, Any]:
    height, width = sent.receptive_field
    facts = f"cut to the {height}×{width} pixels it sees" if height else "whole: not cut"
    return {
        "facts": facts,
        "sees": [height, width],
        "no_finds": sent.top_images_note or ("" if sent.top_images else NO_FINDS),
        "finds": [_find(find, sent.step) for find in sent.top_images],
    }


def _find(find: TopImage, step: int) -> dict[str, Any]:
    ago = step - find.step
    age = "this batch" if ago <= 0 else f"{ago} batch{'es' if ago > 1 else ''} ago"
    return {
        "pixels": find.crop.transpose(1, 2, 0)[None] if len(find.crop) == 3 else find.crop,
        "box": list(find.box),
        "size": list(find.image_size),
        "response": format_number(find.response),
        "age": age,
    }


def _image(sent: FilterInspection) -> dict[str, Any]:
    index = sent.image_index
    whole = image_tile(sent.image)
    known = sent.response is not None and len(whole) > 0
    return {
        "title": "first of the batch" if index is None else f"validation image {index}",
        "image": whole,
        "box": list(sent.box),
        "size": list(sent.image_size),
        "part": _cut(whole, sent) if known else whole[:0],
        "response": format_number(sent.response) if known else "",
        "silent": sent.response is not None and not sent.response > 0,
        "deconvolution": attribution_tile(sent.deconvolution),
        "guided": attribution_tile(sent.guided_backpropagation),
        "refused": sent.attribution_refusal,
    }


def _cut(whole: np.ndarray, sent: FilterInspection) -> np.ndarray:
    """The box out of the image as it is sent, which may be smaller than the original."""
    rows, columns = (
        whole.shape[1] / max(1, sent.image_size[0]),
        whole.shape[2] / max(1, sent.image_size[1]),
    )
    top, left, bottom, right = sent.box
    first_row, first_column = round(top * rows), round(left * columns)
    last_row = max(first_row + 1, round(bottom * rows))
    last_column = max(first_column + 1, round(right * columns))
    return whole[:, first_row:last_row, first_column:last_column]
