"""The selected layer as images: four views of its filters, and the input image."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.core.properties import without_property_validation

from revacnn_lightning.diagnostics.degenerate import ComparisonExclusion
from revacnn_lightning.protocol.inspections import FilterFeaturesAndImages, LayerDetail

from ..embedding.placement import grid_positions
from ..embedding.projection import Projection
from ..rendering.frame_codec import FilterImagesPartContent
from ..rendering.image_names import image_name
from ..rendering.palette import Palette
from ..rendering.predictions import describe_predictions_around_edit
from ..rendering.thumbnails import build_tiles, image_tile
from ..runs.layer_details import VIEWS, LayerDetailRecord, is_single_value
from ..runs.run_state import RunState
from ..tab.tab_state import TabState
from ..tab.watched_layers import no_layers_reason
from .network_data import normalize_gradients

__all__ = ["FilterEmbeddingView", "InputImage", "make_embedding_views"]

TITLES = {
    "coefficients": "Filters",
    "gradients": "Filter gradients",
    "activations": "Activation maps",
    "activation_gradients": "Activation gradients",
}
# The page's color maps: around the middle level, or from zero.
COLORMAPS = {
    "coefficients": "gray",
    "gradients": "warm",
    "activations": "blue",
    "activation_gradients": "diverging",
}
EMPTY_ATLAS = np.zeros((0, 1, 1), np.uint8)
WAITING = "Waiting for the training to send this layer"
NOT_RECORDED = "This layer was not opened before the run ended."
NO_DATA = "No data for this view yet"
NO_GRADIENTS = "Images of a training batch have gradients; an image that you choose has none"
SINGLE_VALUE = "One value per filter, in the order of the filters"
NO_IMAGE = "This batch holds no image; the option images=... says where its images are."


def make_embedding_views(tab: TabState) -> list[FilterEmbeddingView]:
    """Return the four views of the selected layer, one for each set of images of its filters."""
    return [FilterEmbeddingView(tab, view) for view in VIEWS]


class FilterEmbeddingView:
    """Thumbnails of the filters of the selected layer, similar filters close to each other."""

    def __init__(self, tab: TabState, view: str) -> None:
        self.tab = tab
        self.view = view
        self.root = self.source = FilterImagesPartContent(f"view-{view}")
        self._shown_key: tuple[Any, ...] = ()
        self._atlas_key: tuple[Any, ...] = ()
        self._layout: Projection | None = None
        self._revision = 0

    def restyle(self, palette: Palette) -> None:
        """Do nothing: the page colors the levels of the thumbnails."""

    @property
    def _is_visible(self) -> bool:
        """Whether the pane is open. The maps pane shows the activation view."""
        return self.tab.pane == "layer" or (self.tab.pane, self.view) == ("maps", "activations")

    @without_property_validation
    def update(self) -> bool:
        tab, state, position = self.tab, self.tab.state, self.tab.selected_position()
        if state is None or position is None or tab.selection is None:
            return self._clear(no_layers_reason(tab))
        if not self._is_visible:
            return False
        details = tab.follower.layer_details
        layer = details.request_newest(tab.selection.layer, tab.method)
        if layer.detail is None:
            return self._clear(layer.refused or (NOT_RECORDED if tab.ended_reason() else ""))
        names = (tab.selection.layer, self.view, tab.method)
        layout = details.projections.get(*names)
        failure = details.projections.failure(*names)
        is_recomputing = details.projections.is_recomputing(*names)
        key = (tab.structure_key(), names, layer.detail_revision, failure, is_recomputing)
        if layout is self._layout and key == self._shown_key:
            return False
        self._shown_key, self._layout = key, layout
        view = _view(layer.detail, self.view)
        is_single = is_single_value(view, self.view)
        is_computing = not is_single and (layout is None or is_recomputing)
        self.root.data = {
            **self._draw(state, position[0], layer, layer.detail),
            "status": SINGLE_VALUE
            if is_single
            else _status(layout, view, self._missing(layer.detail), failure, is_recomputing),
            "busy": is_computing and len(view.features) > 0 and not failure,
        }
        return True

    def _draw_atlas(
        self, state: RunState, layer: LayerDetailRecord, detail: LayerDetail, rows: np.ndarray
    ) -> None:
        """Draw the thumbnails of the filters in these rows, unless they are drawn already."""
        key = (state, state.structure_revision, detail.layer, layer.detail_revision)
        if key != self._atlas_key:
            self._atlas_key = key
            view = _view(detail, self.view)
            images = build_tiles(view.images, signed=self.view != "activations")
            self.root.atlas = images[rows] if len(images) == len(layer.ids) else EMPTY_ATLAS

    def _filter_values(
        self, state: RunState, layer_index: int, detail: LayerDetail, rows: np.ndarray,
        indices: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        """Return the gradient and activation of the filters, float32 (n, 2).

        For a chosen validation image, the activation is that of the image, not of the batch.
        """
        values = _newest_values(state, layer_index, indices)
        if self._shows_image(detail) and len(rows):
            values[:, 1] = _map_sums(detail.activations.images)[rows]
        return values

    def _missing(self, detail: LayerDetail) -> str:
        """Return why the view has no data, if it has none."""
        is_of_batch = detail.image_index is None or self.view != "activation_gradients"
        return NO_DATA if is_of_batch else NO_GRADIENTS

    def _shows_image(self, detail: LayerDetail) -> bool:
        """Return whether these are the activation maps of a chosen validation image."""
        is_chosen = detail.image_index is not None and detail.activations.images.ndim == 3
        return self.view == "activations" and is_chosen

    def _draw(
        self, state: RunState, layer_index: int, layer: LayerDetailRecord, detail: LayerDetail
    ) -> dict[str, Any]:
        """Draw new thumbnails. Return the data of the filters, one row per filter."""
        ids = np.asarray(state.layer_ids(layer_index), np.int64)
        rows = _rows_of(layer.ids, ids)  # removed filters disappear immediately
        shown_ids = layer.ids[rows]
        indices = _rows_of(ids, shown_ids)
        self._draw_atlas(state, layer, detail, rows)
        positions, degenerate = _positions(self._layout, shown_ids)
        values = self._filter_values(state, layer_index, detail, rows, indices)
        self._revision += 1
        return {
            "layer": detail.layer,
            "layer_index": layer_index,
            "title": TITLES[self.view],
            "colormap": COLORMAPS[self.view],
            "step": detail.step,
            "slices": detail.kernel_slice,
            "of_image": self._shows_image(detail),
            "revision": self._revision,
            "ids": shown_ids.astype(np.float64),
            "indices": indices.astype(np.int32),
            "positions": positions,
            "degenerate": degenerate,
            "amplitude": normalize_gradients(np.nan_to_num(values[:, 0])),
            "values": values,
        }

    def _clear(self, reason: str = "") -> bool:
        """Show no filters, and why."""
        status = reason or WAITING
        if self.source.data.get("status") == status:
            return False
        self._shown_key = self._atlas_key = ()
        self.root.atlas = EMPTY_ATLAS
        self.root.data = {
            "layer": "",
            "title": TITLES[self.view],
            "colormap": COLORMAPS[self.view],
            "status": status,
            "busy": not reason,
            "step": 0,
            "revision": 0,
        }
        return True


class InputImage:
    """The image whose activation maps are shown."""

    def __init__(self, tab: TabState) -> None:
        self.tab = tab
        self.root = self.source = FilterImagesPartContent("input")
        self._drawn: tuple[LayerDetail | None, str] = (None, "")

    def restyle(self, palette: Palette) -> None:
        """Do nothing: an image has its own colors."""

    @without_property_validation
    def update(self) -> bool:
        tab = self.tab
        if tab.pane != "maps" or tab.selection is None:
            return False
        details = tab.follower.layer_details
        layer = details.request_newest(tab.selection.layer, tab.method)
        drawn, refusal = self._drawn
        if layer.detail is None or (layer.detail is drawn and details.image_refusal == refusal):
            return False
        self._drawn = layer.detail, details.image_refusal
        self.root.atlas = tile = image_tile(layer.detail.image)
        index = layer.detail.image_index
        self.root.data = {
            "title": f"Input · {image_name(index)}",
            "step": layer.detail.step,
            "waiting": layer.image != index,
            "note": details.image_refusal or ("" if len(tile) else NO_IMAGE),
            "prediction": describe_predictions_around_edit(layer.detail),
        }
        return True


def _view(detail: LayerDetail, name: str) -> FilterFeaturesAndImages:
    view: FilterFeaturesAndImages = getattr(detail, name)
    return view


def _rows_of(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the rows of ``ids`` that hold the wanted ids, in the order of ``wanted``."""
    if len(ids) == len(wanted) and (ids == wanted).all():
        return np.arange(len(ids))
    row_of = {int(id_): row for row, id_ in enumerate(ids)}
    return np.array([row_of[int(id_)] for id_ in wanted if int(id_) in row_of], np.int64)


def _positions(layout: Projection | None, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of filters, float32 (n, 2), and each `ComparisonExclusion`, uint8 (n,).

    Without a layout, filters stand in a grid. Filters that the layout lacks have NaN positions.
    """
    if layout is None:
        return grid_positions(len(ids)).astype(np.float32), np.zeros(len(ids), np.uint8)
    positions = np.full((len(ids), 2), np.nan, np.float32)
    degenerate = np.full(len(ids), ComparisonExclusion.NONE, np.uint8)
    row_of = {int(id_): row for row, id_ in enumerate(layout.ids)}
    for i, id_ in enumerate(ids.tolist()):
        if id_ in row_of:
            positions[i], degenerate[i] = (
                layout.positions[row_of[id_]],
                layout.degenerate[row_of[id_]],
            )
    return positions, degenerate


def _newest_values(state: RunState, layer_index: int, indices: np.ndarray) -> np.ndarray:
    """Return the newest gradient and activation of filters of a layer, float32 (n, 2)."""
    values = np.zeros((len(indices), 2), np.float32)
    for column, name in enumerate(("gradient", "activation")):
        newest = state.layer_values(name, layer_index)
        if len(newest) == len(state.layer_ids(layer_index)):
            values[:, column] = newest[indices]
    return values


def _map_sums(images: np.ndarray) -> np.ndarray:
    """Return the sum of each activation map (n, h, w), float32 (n,)."""
    return np.nan_to_num(np.asarray(images, np.float32)).sum(axis=(1, 2))


def _status(
    layout: Projection | None,
    view: FilterFeaturesAndImages,
    missing: str,
    failure: str,
    is_recomputing: bool,
) -> str:
    if not len(view.images) and not len(view.features):
        return missing
    if failure:
        return f"{failure}; retrying soon"
    if layout is None:
        return "Computing the layout…"
    return "Recomputing the layout…" if is_recomputing else ""
