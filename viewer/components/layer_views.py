"""The selected layer in pictures: four views by likeness, its maps, and the input image."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.core.properties import without_property_validation
from msgspec.structs import asdict

from revacnn_lightning.diagnostics.degenerate import DegenerateKind
from revacnn_lightning.protocol.messages import FilterView, Layer, LayerDetail

from ..embedding.placement import grid_positions
from ..embedding.projection import Projection
from ..rendering.findings import collect_findings
from ..rendering.frame_codec import SpritePart
from ..rendering.palette import Palette
from ..rendering.thumbnails import build_atlas, image_tile
from ..runs.layer_details import VIEWS, LayerDetailState
from ..runs.run_state import RunState
from ..tab.tab_state import TabState
from .html_panel import HtmlPanel
from .network_data import amplitude

__all__ = ["InputImage", "LayerPanel", "LayerView", "layer_views"]

TITLES = {
    "coefficients": "Filters",
    "gradients": "Filter gradients",
    "activations": "Activation maps",
    "activation_gradients": "Activation gradients",
}
# How levels become colours in the page: around the middle, or from nothing.
COLOURING = {
    "coefficients": "grey",
    "gradients": "warm",
    "activations": "blue",
    "activation_gradients": "diverging",
}
NOTHING = np.zeros((0, 1, 1), np.uint8)
WAITING = "waiting for the training to send this layer"
NOT_SENT = "not opened before the run ended"


def layer_views(tab: TabState) -> list[LayerView]:
    """All four."""
    return [LayerView(tab, view) for view in VIEWS]


class LayerView:
    """One view: thumbnails of all filters, like beside like."""

    def __init__(self, tab: TabState, view: str) -> None:
        self.tab = tab
        self.view = view
        self.root = self.source = SpritePart(f"view-{view}")
        self._shown: tuple[Any, ...] = ()
        self._drawn: tuple[Any, ...] = ()
        self._layout: Projection | None = None
        self._draws = 0

    def restyle(self, palette: Palette) -> None:
        """Nothing to do: the page colours the levels."""

    @property
    def _wanted(self) -> bool:
        return self.tab.pane == "layer" or (self.tab.pane, self.view) == ("maps", "activations")

    @without_property_validation
    def update(self) -> bool:
        tab, state, here = self.tab, self.tab.state, self.tab.selected()
        if state is None or here is None or tab.selection is None:
            return self._clear()
        if not self._wanted:
            return False
        layer = tab.follower.layer_details.mark_visible(tab.selection.layer, tab.method)
        if layer.detail is None:
            return self._clear(layer.refused or (NOT_SENT if tab.over() else ""))
        layout = tab.follower.layer_details.projections.get(
            tab.selection.layer, self.view, tab.method
        )
        failed = tab.follower.layer_details.projections.failure(
            tab.selection.layer, self.view, tab.method
        )
        anew = tab.follower.layer_details.projections.is_recomputing(
            tab.selection.layer, self.view, tab.method
        )
        known = layout is self._layout
        key = (
            state,
            state.structure_revision,
            tab.selection.layer,
            tab.method,
            layer.detail_revision,
            failed,
            anew,
        )
        if known and key == self._shown:
            return False
        self._shown, self._layout = key, layout
        self._draw(state, here[0], layer, layer.detail, failed, anew=anew)
        return True

    def _draw(
        self,
        state: RunState,
        at: int,
        layer: LayerDetailState,
        detail: LayerDetail,
        failed: str,
        *,
        anew: bool,
    ) -> None:
        """Send pictures when they are new, and places with them."""
        view = _view_of(detail, self.view)
        ids = np.asarray(state.layer_ids(at), np.int64)
        rows = _rows(layer.ids, ids)  # removed filters disappear at once
        shown = layer.ids[rows]
        where = _rows(ids, shown)
        drawn = (state, state.structure_revision, detail.layer, layer.detail_revision)
        if drawn != self._drawn:
            self._drawn = drawn
            pictures = build_atlas(view.images, signed=self.view != "activations")
            self.root.atlas = pictures[rows] if len(pictures) == len(layer.ids) else NOTHING
        layout = self._layout
        places, odd = _places(layout, shown)
        values = _numbers(state, at, where)
        chosen = detail.image_index is not None
        if self.view == "activations" and chosen and view.images.ndim == 3 and len(rows):
            values[:, 1] = _sums(view.images)[rows]  # of this very image
        amp = amplitude(np.nan_to_num(values[:, 0]))
        self._draws += 1
        self.root.data = {
            "layer": detail.layer,
            "title": TITLES[self.view],
            "colouring": COLOURING[self.view],
            "status": _status(layout, view, failed, anew=anew),
            "busy": (layout is None or anew) and len(view.features) > 0 and not failed,
            "step": detail.step,
            "slices": detail.kernel_slice,
            "draw": self._draws,
            "ids": shown.astype(np.float64),
            "indices": where.astype(np.int32),
            "places": places,
            "odd": odd,
            "amp": amp,
            "values": values,
        }

    def _clear(self, why: str = "") -> bool:
        status = why or WAITING
        if self.source.data.get("status") == status:
            return False
        self._shown = self._drawn = ()
        self.root.atlas = NOTHING
        self.root.data = {
            "layer": "",
            "title": TITLES[self.view],
            "colouring": COLOURING[self.view],
            "status": status,
            "busy": not why,
            "step": 0,
            "draw": 0,
        }
        return True


class InputImage:
    """The image whose activation maps are shown."""

    def __init__(self, tab: TabState) -> None:
        self.tab = tab
        self.root = self.source = SpritePart("input")
        self._drawn: LayerDetail | None = None

    def restyle(self, palette: Palette) -> None:
        """Nothing to do: a photograph has its own colours."""

    @without_property_validation
    def update(self) -> bool:
        tab = self.tab
        if tab.pane != "maps" or tab.selection is None:
            return False
        layer = tab.follower.layer_details.mark_visible(tab.selection.layer, tab.method)
        if layer.detail is None or layer.detail is self._drawn:
            return False
        self._drawn = layer.detail
        self.root.atlas = image_tile(layer.detail.image)
        index = layer.detail.image_index
        name = "first of the batch" if index is None else f"validation image {index}"
        self.root.data = {
            "title": f"Input · {name}",
            "step": layer.detail.step,
            "waiting": layer.image != index,
        }
        return True


class LayerPanel(HtmlPanel):
    """What is chosen in the panel: pane, method, filters, and what may be done with them."""

    part = "panel"

    def __init__(self, tab: TabState) -> None:
        super().__init__(tab)
        self._found_of: tuple[Any, ...] = ()  # what ``_found`` is made of
        self._found_by: Projection | None = None
        self._found: list[dict[str, Any]] | None = None

    def content(self) -> dict[str, Any]:
        tab, structure, here = self.tab, self.tab.structure, self.tab.selected()
        content: dict[str, Any] = {
            "pane": tab.pane, "method": tab.method, "selected": [], "staged": [],
            "findings": None, "slices": "",
        }  # fmt: skip
        if structure is None or here is None:
            return content
        layer = structure.layers[here[0]]
        picked = tab.picked()
        over, refused = tab.over(), tab.refused(layer)
        several = "" if len(picked) > 1 else "Select two or more filters to merge them"
        frozen = {layer.filter_ids[index] for index in layer.frozen_filters}
        thaw = frozen.issuperset(picked)
        return content | {
            "selected": picked,
            "staged": tab.staging.removed_ids(layer.name),
            "frozen": sorted(frozen),
            "findings": self._findings(layer, here[0]),
            "slices": self._slices(layer),
            "freeze": "Unfreeze" if thaw else "Freeze",
            "refused": {"freeze": over, "reinitialize": over, "merge": refused or several},
            "words": {
                "freeze": "Let the selected filters train again" if thaw
                else "Keep the selected filters as they are while the rest trains",
                "reinitialize": "Draw the coefficients of the selected filters anew",
                "merge": "Merge the selected filters into one, adding up their outgoing weights",
            },
        }  # fmt: skip

    def _findings(self, layer: Layer, at: int) -> list[dict[str, Any]] | None:
        """What is to be noticed among the layer's filters; None before it is known."""
        tab, known = self.tab, self.tab.follower.layer_details.get(layer.name)
        if known is None or known.detail is None or tab.state is None:
            return None
        layout = tab.follower.layer_details.projections.get(layer.name, "coefficients", tab.method)
        start, end = tab.state.offsets[at : at + 2]
        dead = tab.state.dead_mask()[start:end]
        of = (
            tab.state,
            tab.state.structure_revision,
            layer.name,
            known.detail_revision,
            dead.tobytes(),
        )
        if of != self._found_of or layout is not self._found_by:
            ids = np.asarray(tab.state.layer_ids(at), np.int64)
            found = [asdict(finding) for finding in collect_findings(known, layout, ids, ids[dead])]
            self._found_of, self._found_by = of, layout
            self._found = found if found or layout is not None else None
        return self._found

    def _slices(self, layer: Layer) -> str:
        """Which slices the filters' pictures show; "" where there is nothing to choose."""
        known = self.tab.follower.layer_details.get(layer.name)
        if known is None or layer.in_channels // layer.groups in (1, 3):
            return ""
        return known.kernel_slice


def _view_of(detail: LayerDetail, name: str) -> FilterView:
    view: FilterView = getattr(detail, name)
    return view


def _rows(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Rows of ``ids`` of those that are wanted, in the order of ``ids`` where both have them."""
    if len(ids) == len(wanted) and (ids == wanted).all():
        return np.arange(len(ids))
    at = {int(name): row for row, name in enumerate(ids)}
    return np.array([at[int(name)] for name in wanted if int(name) in at], np.int64)


def _places(layout: Projection | None, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where these filters stand, float32 (n, 2), and `DegenerateKind`; a grid before there is a layout."""
    if layout is None:
        return grid_positions(len(ids)).astype(np.float32), np.zeros(len(ids), np.uint8)
    places = np.full((len(ids), 2), np.nan, np.float32)
    odd = np.full(len(ids), DegenerateKind.NONE, np.uint8)
    at = {int(name): row for row, name in enumerate(layout.ids)}
    for i, name in enumerate(ids.tolist()):
        if name in at:
            places[i], odd[i] = layout.positions[at[name]], layout.degenerate[at[name]]
    return places, odd


def _numbers(state: RunState, at: int, where: np.ndarray) -> np.ndarray:
    """Gradient and activation of these filters of a layer, by index, float32 (n, 2)."""
    values = np.zeros((len(where), 2), np.float32)
    for column, name in enumerate(("gradient", "activation")):
        newest = state.layer_values(name, at)
        if len(newest) == len(state.layer_ids(at)):
            values[:, column] = newest[where]
    return values


def _sums(images: np.ndarray) -> np.ndarray:
    """Sum of each map (n, h, w), float32 (n,)."""
    return np.nan_to_num(np.asarray(images, np.float32)).sum(axis=(1, 2))


def _status(layout: Projection | None, view: FilterView, failed: str, *, anew: bool) -> str:
    if not len(view.images) and not len(view.features):
        return "the training has nothing to show here yet"
    if failed:
        return f"{failed}; will be tried again"
    if layout is None:
        return "laying out…"
    return "laying out anew…" if anew else ""
