"""Details of the layers that tabs show. One set per run, shared by all tabs."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from msgspec import Struct, field

from revacnn_lightning.diagnostics.color import find_single_color_filters
from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.inspections import FilterFeaturesAndImages, LayerDetail
from revacnn_lightning.protocol.messages import Message, Refused
from revacnn_lightning.protocol.requests import InspectLayer, KernelSlice

from ..embedding.feature_average import FilterFeatureMovingAverage
from ..embedding.projection import Method
from ..embedding.worker import EmbeddingWorker
from .histogram_history import LayerHistograms
from .layer_projections import VIEWS, LayerProjections
from .run_state import RunState

__all__ = ["VIEWS", "LayerDetailFetcher", "LayerDetailRecord", "is_single_value"]

BATCH_DEPENDENT_VIEWS = VIEWS[1:]  # projected by an average over recent batches

REQUEST_SECONDS = 2.0  # the training stops a few seconds after the last request
REFRESH_HZ = 2.0
VISIBLE_SECONDS = 3.0  # tabs mark what they show more often than this
KEPT_SECONDS = 60.0  # how long the details of a hidden layer are kept
MAX_REQUESTS = 64  # whose replies are pending

Send = Callable[[InspectLayer], str]  # returns the request id


class LayerDetailRecord(Struct):
    """The details and features of one layer, and when tabs requested and showed them.

    Attributes:
        detail: the newest detail; None before the first.
        detail_revision: incremented with every detail.
        ids: the ids of the filters of the layer, int64 (n,).
        features: by view, the features that are projected, float (n, d).
        averages: the moving averages of the features that depend on the batch.
        single_color: which filters respond to a single color, bool (n,).
        image: index of the image whose maps are shown; None for the current batch.
        kernel_slice: the slice that is shown of filters with many inputs.
        depth: the slice that is shown of volumes, from 0 for the first to 1 for the last.
        refused: why the training refuses details; "" if it does not.
        last_requested: when details were last requested (monotonic).
        last_visible: when a tab last showed the layer (monotonic), per projection method.
        last_needed: when a tab last showed other details than its views (monotonic).
        image_last_used: when `image` was last used without the details (monotonic).
        histograms: the histograms of the weights and gradients of the layer over time.
    """

    detail: LayerDetail | None = None
    detail_revision: int = 0
    ids: np.ndarray = np.zeros(0, np.int64)
    features: dict[str, np.ndarray] = {}
    averages: dict[tuple[str, int | None, int], FilterFeatureMovingAverage] = {}
    single_color: np.ndarray = np.zeros(0, bool)
    image: int | None = None
    kernel_slice: KernelSlice = "strongest"
    depth: float = 0.5
    refused: str = ""
    last_requested: float = 0.0
    last_visible: dict[str, float] = {}
    last_needed: float = 0.0
    image_last_used: float = 0.0
    histograms: LayerHistograms = field(default_factory=LayerHistograms)


class LayerDetailFetcher:
    """Requests the details of visible layers and has their views projected.

    Args:
        make_projector: creates the projection worker, on first use or on `start`.

    Attributes:
        projections: the projections of the views of all layers.
        image: index of the image that is selected in all layers; None for the current batch.
        image_refusal: why the image that was selected last cannot be shown; "" if it can.
    """

    def __init__(self, make_projector: Callable[[], EmbeddingWorker] = EmbeddingWorker) -> None:
        self.projections = LayerProjections(make_projector)
        self._layers: dict[str, LayerDetailRecord] = {}
        self._requests: dict[str, tuple[str, int | None]] = {}  # request id -> layer, image
        self.image: int | None = None
        self.image_refusal = ""

    def start(self) -> None:
        """Start the projection worker, which takes some seconds to warm up."""
        self.projections.start()

    def close(self) -> None:
        """Stop the projection worker."""
        self.projections.close()

    def get(self, layer: str) -> LayerDetailRecord | None:
        """Return what is known about a layer, without requesting anything."""
        return self._layers.get(layer)

    def request_newest(self, layer: str, method: Method) -> LayerDetailRecord:
        """Request the details of a layer that a tab shows; return what is known about it.

        Its views are projected by ``method``. Tabs call this repeatedly: it expires after
        `VISIBLE_SECONDS`.
        """
        state = self._layers.setdefault(layer, LayerDetailRecord(image=self.image))
        state.last_visible[method] = time.monotonic()
        return state

    def mark_needed(self, layer: str) -> LayerDetailRecord:
        """Request the details of a layer, but do not project its views."""
        state = self._layers.setdefault(layer, LayerDetailRecord(image=self.image))
        state.last_needed = time.monotonic()
        return state

    def show_image_if_known(self, layer: str, image: int | None) -> None:
        """Show another image in all layers: a validation image, or None for the current batch.

        Without the details of ``layer``, nothing is selected: they say whether there is the image.
        """
        if layer in self._layers:
            self.show_image(image)

    def show_image(self, image: int | None) -> None:
        """Show another image, which the training has, in all layers."""
        self.image, self.image_refusal = image, ""
        for state in self._layers.values():
            if state.image != image:
                state.image, state.last_requested = image, 0.0

    def replace_shown_image(self, image: int, replacement: int | None) -> None:
        """Show another image where this one was selected, which the training does not have."""
        if self.image == image:
            self.show_image(replacement)

    def selected_image(self, layer: str) -> int | None:
        """Return the selected image, without requesting the details of the layer that shows it."""
        state = self._layers.get(layer)
        if state is not None:
            state.image_last_used = time.monotonic()
        return self.image

    def select_kernel_slice(self, layer: str, kernel_slice: KernelSlice) -> None:
        """Show another slice of the layer's filters."""
        state = self._layers.get(layer)
        if state is not None and state.kernel_slice != kernel_slice:
            state.kernel_slice, state.last_requested = kernel_slice, 0.0

    def select_depth(self, layer: str, depth: float) -> None:
        """Show another slice of a layer whose kernels, maps or inputs are volumes."""
        state = self._layers.setdefault(layer, LayerDetailRecord(image=self.image))
        state.depth, state.last_requested, state.image_last_used = depth, 0.0, time.monotonic()

    def tick(self, state: RunState | None, send: Send) -> None:
        """Request details of visible layers, submit new features, and collect projections."""
        now = time.monotonic()
        self._drop_unused(state, now)
        for name, layer in self._layers.items():
            if now - max([layer.last_needed, *layer.last_visible.values()]) > VISIBLE_SECONDS:
                continue
            if now - layer.last_requested > REQUEST_SECONDS:
                layer.last_requested = now
                self._request(name, layer, send)
            self._submit(name, layer, now)
        self.projections.collect(now)

    def receive(self, message: Message, state: RunState) -> None:
        """Store a layer detail, or the refusal of one."""
        if isinstance(message, LayerDetail):
            self._receive_detail(message, state)
        elif isinstance(message, Refused) and message.id in self._requests:
            name, image = self._requests.pop(message.id)
            layer = self._layers.get(name)
            if layer is not None and _receive_refusal(layer, image, message.reason):
                self.image, self.image_refusal = layer.image, message.reason
                for other in self._layers.values():
                    other.image = layer.image

    def _request(self, name: str, layer: LayerDetailRecord, send: Send) -> None:
        try:
            request = send(
                InspectLayer(
                    name,
                    REFRESH_HZ,
                    layer.image,
                    kernel_slice=layer.kernel_slice,
                    depth=layer.depth,
                )
            )
        except ProtocolError as error:
            layer.refused = str(error)
            return
        self._requests[request] = name, layer.image
        while len(self._requests) > MAX_REQUESTS:
            del self._requests[next(iter(self._requests))]

    def _receive_detail(self, detail: LayerDetail, state: RunState) -> None:
        layer, structure = self._layers.get(detail.layer), state.structure
        index = state.layer_index(detail.layer)
        if layer is None or structure is None or index is None:
            return
        if detail.run != structure.run or detail.version != structure.version:
            return  # of a network that is unknown or outdated
        ids = np.asarray(structure.layers[index].filter_ids, np.int64)
        if any(len(array) not in (0, len(ids)) for array in _arrays(detail)):
            return
        _update_features(layer, detail, ids, structure.layers[index].in_channels)
        layer.detail, layer.ids, layer.refused = detail, ids, ""
        layer.histograms.add(detail)
        layer.single_color = find_single_color_filters(detail.coefficients.images)
        layer.detail_revision += 1

    def _drop_unused(self, state: RunState | None, now: float) -> None:
        """Drop layers not shown for `KEPT_SECONDS`, and those removed from the network."""
        structure = None if state is None else state.structure
        names = set() if structure is None else {layer.name for layer in structure.layers}
        for name, layer in list(self._layers.items()):
            others = (layer.image_last_used, layer.last_needed)
            last_used = max([*others, *layer.last_visible.values()])
            if now - last_used > KEPT_SECONDS or (structure is not None and name not in names):
                del self._layers[name]
                self.projections.drop(name)

    def _submit(self, name: str, layer: LayerDetailRecord, now: float) -> None:
        """Submit the features of all views, for each method in use."""
        if layer.detail is None:
            return
        for method, last_visible in layer.last_visible.items():
            if now - last_visible > VISIBLE_SECONDS:
                continue
            for view in VIEWS:
                features = layer.features[view]
                if features.ndim == 2 and len(features) == len(layer.ids):
                    key = (name, view, method)
                    self.projections.submit(key, features, layer.ids, layer.detail_revision, now)  # type: ignore[arg-type]


def _receive_refusal(layer: LayerDetailRecord, image: int | None, reason: str) -> bool:
    """Store why details are refused. Without the selected image, go on with the one before.

    Returns:
        Whether that is so.
    """
    layer.refused = reason
    shown = None if layer.detail is None else layer.detail.image_index
    if layer.detail is not None and image == layer.image != shown:
        layer.image, layer.last_requested = layer.detail.image_index, 0.0
        return True
    return False


def _view(detail: LayerDetail, name: str) -> FilterFeaturesAndImages:
    view: FilterFeaturesAndImages = getattr(detail, name)
    return view


def is_single_value(view: FilterFeaturesAndImages, view_name: str) -> bool:
    """Return whether a map is a single value, as of linear layers: no layout arranges those."""
    return view_name in ("activations", "activation_gradients") and view.images.shape[1:] == (1, 1)


def _arrays(detail: LayerDetail) -> list[np.ndarray]:
    views = [_view(detail, name) for name in VIEWS]
    return [array for view in views for array in (view.features, view.images)]


def _update_features(
    layer: LayerDetailRecord, detail: LayerDetail, ids: np.ndarray, in_channels: int
) -> None:
    """Set the features by which the views are projected; average the batch-dependent ones.

    A detail of the same batch as the last, as sent by a paused run, does not enter the averages
    again.
    """
    last = layer.detail
    is_same_batch = last is not None and (last.version, last.step) == (detail.version, detail.step)
    averages = {}
    for view in VIEWS:
        features = _view(detail, view).features
        if is_single_value(_view(detail, view), view):
            features = np.zeros(0, np.float32)
        is_fixed = view == "activations" and detail.image_index is not None
        if view in BATCH_DEPENDENT_VIEWS and len(features) and not is_fixed:
            # The training projects gradients of another number of inputs differently.
            key = view, detail.image_index, in_channels if view == "gradients" else 0
            known = layer.averages.get(key)
            averages[key] = known or FilterFeatureMovingAverage()
            if known is None or not is_same_batch:
                features = averages[key].add_and_average(ids, features)
            else:
                features = layer.features[view]
        layer.features[view] = features
    layer.averages = averages
