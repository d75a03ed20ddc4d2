"""The inspection pane: top images of the selected filter, and its attribution in an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.core.properties import without_property_validation

from revacnn_lightning.protocol.inspections import FilterInspection, PreferredImage, TopImage

from ..rendering.formatting import format_number
from ..rendering.frame_codec import PagePart
from ..rendering.image_names import image_name
from ..rendering.palette import Palette
from ..rendering.thumbnails import attribution_tile, image_tile
from ..tab.tab_state import TabState

__all__ = ["FilterInspectionPane"]

NO_TOP_IMAGES = "No image has activated this filter since the pane was opened."
WAITING = "Waiting for the next training batch"
NOT_RECORDED = "This filter was not inspected before the run ended."


class FilterInspectionPane:
    """Requests and shows inspections only while its pane is open."""

    def __init__(self, tab: TabState) -> None:
        self.tab = tab
        self.root = self.source = PagePart("inspection")
        self._shown_key: tuple[Any, ...] = ()

    def restyle(self, palette: Palette) -> None:
        """Do nothing: images have their own colors."""

    @without_property_validation
    def update(self) -> bool:
        tab = self.tab
        if tab.pane != "inspection" or tab.selection is None or tab.selected_position() is None:
            return False
        layer, filter_id = tab.selection.layer, tab.selection.filter_id
        image = tab.follower.layer_details.selected_image(layer)
        inspected = tab.follower.inspections.mark_visible(layer, filter_id, image)
        result = inspected.inspection
        status = inspected.refused or (NOT_RECORDED if tab.ended_reason() else "")
        version = None if result is None else (result.version, result.step, result.image_index)
        key = (tab.state, layer, filter_id, image, version, status)
        if key == self._shown_key:
            return False
        self._shown_key = key
        if result is None:
            self.root.data = {"status": status or WAITING, "busy": not status}
            return True
        self.root.data = {
            "status": inspected.refused,
            "busy": result.image_index != image and not status,
            **_top_images(result),
            "preferred": _preferred(result.preferred),
            "preferred_note": result.preferred_refusal,
            **_image(result),
        }
        return True


def _top_images(result: FilterInspection) -> dict[str, Any]:
    height, width = result.receptive_field
    note = f"cropped to the {height}×{width} receptive field" if height else "not cropped"
    missing = "" if result.top_images else NO_TOP_IMAGES
    return {
        "crop_note": note,
        "receptive_field": [height, width],
        "no_top_images": result.top_images_note or missing,
        "top_images": [_top_image(image, result.step) for image in result.top_images],
    }


def _top_image(image: TopImage, step: int) -> dict[str, Any]:
    age = step - image.step
    crop = image.crop
    return {
        "pixels": crop.transpose(1, 2, 0)[None] if len(crop) == 3 else crop,
        "box": list(image.box),
        "size": list(image.image_size),
        "response": format_number(image.response),
        "age": "this batch" if age <= 0 else f"{age} batch{'es' if age > 1 else ''} ago",
    }


def _preferred(found: PreferredImage | None) -> dict[str, Any] | None:
    """Return the image that the filter responds to most, as far as it has been found."""
    if found is None:
        return None
    return {
        "pixels": image_tile(found.pixels),
        "box": list(found.box),
        "response": format_number(found.response),
        "share": min(1.0, found.steps / max(1, found.total_steps)),
        "steps": found.steps,
    }


def _image(result: FilterInspection) -> dict[str, Any]:
    index = result.image_index
    whole = image_tile(result.image)
    has_response = result.response is not None and len(whole) > 0
    return {
        "title": image_name(index),
        "image": whole,
        "box": list(result.box),
        "size": list(result.image_size),
        "crop": _crop(whole, result) if has_response else whole[:0],
        "response": format_number(result.response) if has_response else "",
        "inactive": result.response is not None and not result.response > 0,
        "deconvolution": attribution_tile(result.deconvolution),
        "guided": attribution_tile(result.guided_backpropagation),
        "refused": result.attribution_refusal,
    }


def _crop(whole: np.ndarray, result: FilterInspection) -> np.ndarray:
    """Crop the box from the image (1, h, w[, 3]), which may be smaller than the original."""
    scale_y = whole.shape[1] / max(1, result.image_size[0])
    scale_x = whole.shape[2] / max(1, result.image_size[1])
    top, left, bottom, right = result.box
    first_row, first_column = round(top * scale_y), round(left * scale_x)
    last_row = max(first_row + 1, round(bottom * scale_y))
    last_column = max(first_column + 1, round(right * scale_x))
    return whole[:, first_row:last_row, first_column:last_column]
