"""The layers that are shown somewhere: what the training tells of them, and their layouts.

One per server process. All tabs that show a layer share what is asked for and computed.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from msgspec import Struct

from revacnn_lightning.diagnostics.color import find_single_color
from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.messages import FilterView, LayerDetail, Message, Refused
from revacnn_lightning.protocol.requests import InspectLayer, Slices

from ..embedding.feature_average import FeatureAverage
from ..embedding.projection import Method, Projection, ProjectionJob, relative_change
from ..embedding.worker import EmbeddingWorker, Failure
from .run_state import RunState

__all__ = ["VIEWS", "LayerDetailState", "LayerDetails"]

VIEWS = ("coefficients", "gradients", "activations", "activation_gradients")
FLEETING = VIEWS[1:]  # other with every batch: their likeness is that over the last of them

WATCH_SECONDS = 2.0  # the training's interest ends some seconds after the last request
WATCH_HZ = 2.0
SHOWN_SECONDS = 3.0  # a tab that shows a layer says so at least this often
KEPT_SECONDS = 60.0  # what is known of a layer that nobody shows
RETRY_SECONDS = 30.0  # after a layout that failed

Key = tuple[str, str, Method]  # layer, view, method


class LayerDetailState(Struct):
    """What is known of a layer.

    Attributes:
        detail: the newest, None before the first.
        ids: of its rows, int64 (n,).
        features: what each view is laid out by, float (n, d).
        averages: of the features of the views that are other with every batch.
        serial: counted up with every detail and layout.
        received: serial of the detail.
        single: which of its filters see a single colour, bool (n,).
        image: of the validation data that its maps are wanted of; None: of the current batch.
        slices: what is wanted to be seen of filters with many inputs.
        refused: why the training sends nothing.
        shown: when a tab last showed it (monotonic), per method.
        kept: when it was last needed for its image alone (monotonic).
    """

    detail: LayerDetail | None = None
    ids: np.ndarray = np.zeros(0, np.int64)
    features: dict[str, np.ndarray] = {}
    averages: dict[tuple[str, int | None, int], FeatureAverage] = {}
    serial: int = 0
    received: int = 0
    single: np.ndarray = np.zeros(0, bool)
    image: int | None = None
    slices: Slices = "strongest"
    refused: str = ""
    asked: float = 0.0
    shown: dict[str, float] = {}
    kept: float = 0.0


class _Laid(Struct):
    """A layout, and what it was made of."""

    layout: Projection | None = None
    features: np.ndarray = np.zeros((0, 0))
    ids: np.ndarray = np.zeros(0, np.int64)
    made_of: int = -1  # which detail
    retry_at: float = 0.0
    anew: bool = False  # the next
    wanted: bool = False  # anew, by a person who waits for it
    seed: int = 0
    failed: str = ""  # why the newest attempt has led to nothing


class LayerDetails:
    """Asks for details, has layouts computed, and holds both.

    Args:
        make_worker: makes what computes the layouts, on first need or on `start`.
    """

    def __init__(self, make_worker: Callable[[], EmbeddingWorker] = EmbeddingWorker) -> None:
        self._make_worker = make_worker
        self._worker: EmbeddingWorker | None = None
        self._layers: dict[str, LayerDetailState] = {}
        self._laid: dict[Key, _Laid] = {}
        self._requests: dict[str, str] = {}  # id of a request -> layer
        self._computing: dict[Key, tuple[LayerDetailState, np.ndarray, np.ndarray, int]] = {}

    def start(self) -> None:
        """Begin to warm up."""
        if self._worker is None:
            self._worker = self._make_worker()

    def close(self) -> None:
        """End the process that computes."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def forget(self) -> None:
        """Another run: nothing of the last one holds any more."""
        for key in self._laid:
            if self._worker is not None:
                self._worker.forget(key)
        self._layers.clear()
        self._laid.clear()
        self._requests.clear()
        self._computing.clear()

    # What tabs do

    def show(self, layer: str, method: Method) -> LayerDetailState:
        """This layer is visible in a tab, laid out by this method. To be repeated."""
        known = self._layers.setdefault(layer, LayerDetailState())
        known.shown[method] = time.monotonic()
        return known

    def choose_image(self, layer: str, image: int | None) -> None:
        """Have maps of another image sent."""
        known = self._layers.get(layer)
        if known is not None and known.image != image:
            known.image, known.asked = image, 0.0

    def image_of(self, layer: str) -> int | None:
        """The image chosen for a layer. Does not ask for the layer's details."""
        known = self._layers.get(layer)
        if known is None:
            return None
        known.kept = time.monotonic()
        return known.image

    def choose_slices(self, layer: str, slices: Slices) -> None:
        """Have other slices of its filters sent."""
        known = self._layers.get(layer)
        if known is not None and known.slices != slices:
            known.slices, known.asked = slices, 0.0

    def known(self, layer: str) -> LayerDetailState | None:
        """What is known of a layer, without showing it."""
        return self._layers.get(layer)

    def layout(self, layer: str, view: str, method: Method) -> Projection | None:
        """The newest layout; None before the first."""
        laid = self._laid.get((layer, view, method))
        return None if laid is None else laid.layout

    def lay_out_anew(self, layer: str, method: Method) -> None:
        """Begin all views of a layer from nothing, and each time from elsewhere."""
        for view in VIEWS:
            laid = self._laid.get((layer, view, method))
            if laid is not None:
                laid.anew, laid.made_of, laid.retry_at = True, -1, 0.0
                laid.wanted, laid.seed = True, laid.seed + 1

    def is_anew(self, layer: str, view: str, method: Method) -> bool:
        """Whether a layout anew has been asked for and is not there yet."""
        laid = self._laid.get((layer, view, method))
        return laid is not None and laid.wanted

    def failure(self, layer: str, view: str, method: Method) -> str:
        """Why the newest layout has failed; "" if it has not."""
        laid = self._laid.get((layer, view, method))
        return "" if laid is None else laid.failed

    def is_computing(self, layer: str, view: str, method: Method) -> bool:
        """Whether a layout is under way."""
        key = (layer, view, method)
        return self._worker is not None and self._worker.is_busy(key)

    # What the hub does

    def tick(self, state: RunState | None, ask: Callable[[InspectLayer], str]) -> None:
        """Ask for what is shown, have it laid out, take what is done. Never waits."""
        now = time.monotonic()
        self._drop_stale(state, now)
        for name, layer in self._layers.items():
            if now - max(layer.shown.values(), default=0.0) > SHOWN_SECONDS:
                continue
            if now - layer.asked > WATCH_SECONDS:
                layer.asked = now
                self._ask(name, layer, ask)
            self._submit(name, layer, now)
        self._take_layouts(now)

    def take(self, message: Message, state: RunState) -> None:
        """Take over a detail, or a refusal to send any."""
        if isinstance(message, LayerDetail):
            self._take_detail(message, state)
        elif isinstance(message, Refused) and message.id in self._requests:
            layer = self._layers.get(self._requests.pop(message.id))
            if layer is not None:
                layer.refused = message.reason
                layer.serial += 1

    def _ask(self, name: str, layer: LayerDetailState, ask: Callable[[InspectLayer], str]) -> None:
        try:
            request = ask(InspectLayer(name, WATCH_HZ, layer.image, slices=layer.slices))
        except ProtocolError as error:
            layer.refused = str(error)
            layer.serial += 1
            return
        self._requests[request] = name
        while len(self._requests) > 64:
            del self._requests[next(iter(self._requests))]

    def _take_detail(self, detail: LayerDetail, state: RunState) -> None:
        layer, structure = self._layers.get(detail.layer), state.structure
        at = state.layer_index(detail.layer)
        if layer is None or structure is None or at is None:
            return
        if detail.run != structure.run or detail.version != structure.version:
            return  # of a network that is not known yet, or no longer there
        ids = np.asarray(structure.layers[at].ids, np.int64)
        if any(len(part) not in (0, len(ids)) for part in _arrays(detail)):
            return
        _follow_features(layer, detail, ids, structure.layers[at].in_channels)
        layer.detail, layer.ids, layer.refused = detail, ids, ""
        layer.single = find_single_color(detail.coefficients.images)
        layer.serial += 1
        layer.received = layer.serial

    def _drop_stale(self, state: RunState | None, now: float) -> None:
        structure = None if state is None else state.structure
        names = set() if structure is None else {layer.name for layer in structure.layers}
        for name, layer in list(self._layers.items()):
            unseen = now - max([layer.kept, *layer.shown.values()]) > KEPT_SECONDS
            if unseen or (structure is not None and name not in names):
                del self._layers[name]
                for key in [key for key in self._laid if key[0] == name]:
                    del self._laid[key]
                    if self._worker is not None:
                        self._worker.forget(key)

    def _submit(self, name: str, layer: LayerDetailState, now: float) -> None:
        """Have every view laid out whose newest features have not been yet."""
        if layer.detail is None:
            return
        for method, shown in layer.shown.items():
            if now - shown > SHOWN_SECONDS:
                continue
            for view in VIEWS:
                features = layer.features[view]
                if features.ndim == 2 and len(features) == len(layer.ids):
                    self._submit_view((name, view, method), layer, features, now)  # type: ignore[arg-type]

    def _submit_view(
        self, key: Key, layer: LayerDetailState, features: np.ndarray, now: float
    ) -> None:
        laid = self._laid.setdefault(key, _Laid())
        self.start()
        worker = self._worker
        done = laid.made_of == layer.received or now < laid.retry_at
        if worker is None or done or worker.is_busy(key):
            return
        change = _change(laid.ids, laid.features, layer.ids, features)
        last = laid.layout or self._other(key)
        compare = key[1] == "coefficients"
        job = ProjectionJob(
            features, layer.ids, key[2], last, change, laid.anew, compare, laid.seed
        )
        laid.anew = False
        laid.made_of = layer.received
        self._computing[key] = (layer, features, layer.ids, layer.received)
        worker.submit(key, job)

    def _other(self, key: Key) -> Projection | None:
        """A layout of the same view by another method, onto which this one is turned."""
        for other, laid in self._laid.items():
            if other[:2] == key[:2] and laid.layout is not None:
                return laid.layout
        return None

    def _take_layouts(self, now: float) -> None:
        for name, result in [] if self._worker is None else self._worker.poll():
            key: Key = name  # type: ignore[assignment]
            laid, of = self._laid.get(key), self._computing.pop(key, None)
            if laid is None or of is None:
                continue
            layer, features, ids, _ = of
            layer.serial += 1
            laid.wanted = laid.wanted and laid.anew  # asked for while this one was under way
            if isinstance(result, Failure):
                # The last layout stays in sight, but the next one does not begin from it.
                laid.anew, laid.made_of, laid.failed = True, -1, result.reason
                laid.retry_at = now + RETRY_SECONDS
            else:
                laid.layout, laid.features, laid.ids = result, features, ids
                laid.failed = ""


def _view(detail: LayerDetail, name: str) -> FilterView:
    view: FilterView = getattr(detail, name)
    return view


def _follow_features(
    layer: LayerDetailState, detail: LayerDetail, ids: np.ndarray, inputs: int
) -> None:
    """Take what the views are to be laid out by; averages go on where they speak of the same.

    A detail of the same batch as the last, of a paused run, tells nothing new of what is averaged.
    """
    last = layer.detail
    again = last is not None and (last.version, last.step) == (detail.version, detail.step)
    averages = {}
    for view in VIEWS:
        features = _view(detail, view).features
        chosen = view == "activations" and detail.image_index is not None
        if view in FLEETING and len(features) and not chosen:
            # Gradients of another number of inputs are projected in another way.
            key = view, detail.image_index, inputs if view == "gradients" else 0
            known = layer.averages.get(key)
            averages[key] = known or FeatureAverage()
            if known is None or not again:
                features = averages[key].add(ids, features)
            else:
                features = layer.features[view]
        layer.features[view] = features
    layer.averages = averages


def _arrays(detail: LayerDetail) -> list[np.ndarray]:
    views = [_view(detail, name) for name in VIEWS]
    return [part for view in views for part in (view.features, view.images)]


def _change(old_ids: np.ndarray, old: np.ndarray, ids: np.ndarray, features: np.ndarray) -> float:
    """Relative change of the features of the filters that both know."""
    if old.ndim != 2 or old.shape[1:] != features.shape[1:]:
        return 1.0
    _, i, j = np.intersect1d(old_ids, ids, return_indices=True)
    return relative_change(old[i], features[j]) if len(i) else 1.0
