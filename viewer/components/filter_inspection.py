"""The inspection pane: top images of the selected filter, and its attribution in an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.core.properties import without_property_validation

from revacnn_lightning.protocol.inspections import FilterInspection, PreferredImage, TopImage

from ..rendering.formatting import format_number
from ..rendering.frame_codec import PagePartContent
from ..rendering.image_names import image_name
from ..rendering.inspected_inputs import (
    attribution_picture,
    describe_input_crop,
    describe_receptive_field_crop,
    input_picture,
    is_drawn_as_curves,
    quantize_curves,
    signal_raster_row_count,
)
from ..rendering.palette import Palette
from ..tab.tab_state import TabState

__all__ = ["FilterInspectionPane"]

MIDDLE = 0.5  # of the slices of a volume
NO_TOP_IMAGES = "No image has activated this filter since the pane was opened."
WAITING = "Waiting for the next training batch"
NOT_RECORDED = "This filter was not inspected before the run ended."


class FilterInspectionPane:
    """What activates the selected filter: inspections, requested only while the pane is open."""

    def __init__(self, tab: TabState) -> None:
        self.tab = tab
        self.root = self.source = PagePartContent("inspection")
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
        details = tab.follower.layer_details.get(layer)
        depth = MIDDLE if details is None else details.depth
        inspected = tab.follower.inspections.request_newest(layer, filter_id, image, depth)
        result = inspected.inspection
        status = inspected.refused or (NOT_RECORDED if tab.ended_reason() else "")
        version = (
            None
            if result is None
            else (result.version, result.step, result.image_index, result.depth)
        )
        key = (tab.state, layer, filter_id, image, depth, version, status)
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
    missing = "" if result.top_images else NO_TOP_IMAGES
    is_signal = _is_signal(result.image_size)
    return {
        "crop_note": describe_receptive_field_crop(
            result.receptive_field,
            result.receptive_field_depth,
            is_signal=is_signal,
            is_volume=result.volume is not None,
        ),
        "receptive_field": list(_drawn_size(result.receptive_field, result.image)),
        "no_top_images": result.top_images_note or missing,
        "top_images": [_top_image(image, result.step) for image in result.top_images],
    }


def _top_image(image: TopImage, step: int) -> dict[str, Any]:
    age = step - image.step
    crop, size = image.crop, image.image_size
    is_signal = _is_signal(size)
    return {
        "pixels": input_picture(crop) if is_signal else _tile(crop),
        "box": _drawn_box(image.box, crop),
        "place": describe_input_crop(image.box, size, image.volume, is_signal=is_signal),
        "response": format_number(image.response),
        "age": "this batch" if age <= 0 else f"{age} batch{'es' if age > 1 else ''} ago",
    }


def _tile(crop: np.ndarray) -> np.ndarray:
    """Return levels (1 or 3, h, w) as a tile."""
    return crop.transpose(1, 2, 0)[None] if len(crop) == 3 else crop


def _is_signal(size: tuple[int, int]) -> bool:
    return size[0] == 1 and size[1] > 1


def _drawn_size(size: tuple[int, int], values: np.ndarray) -> tuple[int, int]:
    """Return a height and width as they are drawn: a signal may have a row per channel."""
    rows = signal_raster_row_count(values)
    return size if rows is None or size[0] != 1 else (rows, size[1])


def _drawn_box(box: tuple[int, int, int, int], values: np.ndarray) -> list[int]:
    rows = signal_raster_row_count(values)
    return list(box if rows is None else (0, box[1], rows, box[3]))


def _preferred(found: PreferredImage | None) -> dict[str, Any] | None:
    """Return the image that the filter responds to most, as far as it has been found."""
    if found is None:
        return None
    return {
        "pixels": input_picture(found.pixels),
        "box": _drawn_box(found.box, found.pixels),
        "response": format_number(found.response),
        "share": min(1.0, found.steps / max(1, found.total_steps)),
        "steps": found.steps,
    }


def _image(result: FilterInspection) -> dict[str, Any]:
    index, volume, image = result.image_index, result.volume, result.image
    whole = input_picture(image)
    has_response = result.response is not None and image.size > 0
    title = image_name(index)
    if volume is not None:
        title += f", slice {volume.index} of {volume.count}"
    return {
        "title": title,
        "image": whole,
        "box": _drawn_box(result.box, image),
        "size": list(_drawn_size(result.image_size, image)),
        "crop": _crop(result, whole) if has_response else whole[:0],
        "response": format_number(result.response) if has_response else "",
        "response_map": _response_map(result),
        "inactive": result.response is not None and not result.response > 0,
        "deconvolution": attribution_picture(result.deconvolution),
        "guided": attribution_picture(result.guided_backpropagation),
        "refused": result.attribution_refusal,
    }


def _response_map(result: FilterInspection) -> np.ndarray | None:
    """Return the filter's map of a signal that is drawn as a curve, as a curve."""
    if not result.response_map.size or not is_drawn_as_curves(result.image):
        return None
    return quantize_curves(result.response_map[None])


def _crop(result: FilterInspection, whole: np.ndarray) -> np.ndarray:
    """Crop the box from the input as it is drawn, which may be smaller than the original."""
    image, (height, width) = result.image, _drawn_size(result.image_size, result.image)
    top, left, bottom, right = _drawn_box(result.box, image)
    if is_drawn_as_curves(image):
        return quantize_curves(image[:, 0], _shown(left, right, image.shape[2] / width))
    rows = _shown(top, bottom, whole.shape[1] / max(1, height))
    return whole[:, rows, _shown(left, right, whole.shape[2] / max(1, width))]


def _shown(first: int, last: int, scale: float) -> slice:
    """Return which pixels show those from ``first`` to ``last`` of the original: at least one."""
    start = round(first * scale)
    return slice(start, max(start + 1, round(last * scale)))
