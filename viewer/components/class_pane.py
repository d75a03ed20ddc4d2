"""Which classes the filters of the selected layer answer to, as a matrix of filters and classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.core.properties import without_property_validation

from revacnn_lightning.protocol.class_lens import ClassLens, Confusion
from revacnn_lightning.protocol.requests import InspectClasses

from ..rendering.formatting import format_count, format_number
from ..rendering.frame_codec import PagePartContent
from ..rendering.palette import Palette
from ..tab.tab_state import TabState

__all__ = ["ClassMatrixPane", "argsort_filters"]

WAITING = "Waiting for the next batches"
NOT_RECORDED = "The classes of this layer were not opened before the run ended."
NO_GRADIENTS = "No gradient has reached the maps of this layer: it is frozen, or behind frozen ones"
LIMITS = {"activation": 2.0, "gradient": 1.0}  # that the strongest color stands for


class ClassMatrixPane:
    """How much each filter of the selected layer responds to each class, as a matrix.

    It is requested only while the pane is open.
    """

    def __init__(self, tab: TabState) -> None:
        self.tab = tab
        self.root = self.source = PagePartContent("classes")
        self._shown_key: tuple[Any, ...] = ()

    def restyle(self, palette: Palette) -> None:
        """Do nothing: the page draws the matrix in the colors of its style sheet."""

    @without_property_validation
    def update(self) -> bool:
        tab = self.tab
        position = tab.selected_position()
        if tab.pane != "classes" or tab.selection is None or position is None:
            return False
        requests, layer = tab.follower.classes, tab.selection.layer
        lens = requests.request_newest_of_layer(layer)
        refused = requests.refusal(InspectClasses(layer))
        awaited = NOT_RECORDED if tab.ended_reason() else tab.waiting_reason(WAITING)
        key = (
            tab.state,
            layer,
            requests.revision,
            tab.class_view.measure,
            tab.class_view.order,
            awaited,
            tuple(tab.selected_ids()),
        )
        if key == self._shown_key:
            return False
        self._shown_key = key
        status = refused or awaited
        if lens is not None and (lens.note or not lens.classes):
            status = lens.note or awaited
        is_known = lens is not None and bool(lens.classes)
        content = {
            "layer": position[0],
            "measure": tab.class_view.measure,
            "order": tab.class_view.order,
            "status": "" if is_known else status,
            "confusion": None if requests.confusion is None else _confusion(requests.confusion),
        }
        if lens is not None and is_known:
            content |= self._matrix(lens, position[0])
        self.root.data = content
        return True

    def _matrix(self, lens: ClassLens, layer: int) -> dict[str, Any]:
        """Return the rows of the matrix, in their order, and the classes."""
        measure = self.tab.class_view.measure
        values = lens.effects() if measure == "activation" else lens.pulls()
        selectivity, conflict = lens.selectivity(), lens.conflict()
        order = argsort_filters(lens, self.tab.class_view.order)
        assert self.tab.structure is not None
        ids = self.tab.structure.layers[layer].filter_ids
        selected = set(self.tab.selected_ids())
        note = NO_GRADIENTS if measure == "gradient" and np.isnan(lens.gradient).all() else ""
        return {
            "values": np.ascontiguousarray(values[order], np.float32),
            "limit": LIMITS[measure],
            "filters": order.astype(np.float64),
            "selectivity": selectivity[order].astype(np.float32),
            "conflict": conflict[order].astype(np.float32),
            "selected": [row for row, index in enumerate(order) if ids[index] in selected],
            "classes": [
                {"index": index, "name": name or f"class {index}", "images": format_number(count)}
                for index, name, count in zip(
                    lens.classes, lens.names, lens.counts.tolist(), strict=True
                )
            ],
            "facts": _facts(lens),
            "note": note,
        }


def argsort_filters(responses: ClassLens, order: str) -> np.ndarray:
    """Return the indices that sort the filters in the order of the rows.

    Args:
        responses: how the filters of a layer respond to classes.
        order: ``class`` groups the filters by the class that they answer to most, the strongest
            first; ``selectivity`` and ``conflict`` put the largest first; ``index`` is that of the
            layer.
    """
    if order == "selectivity":
        return np.argsort(-responses.selectivity(), kind="stable")
    if order == "conflict":
        return np.argsort(-responses.conflict(), kind="stable")
    if order == "class":
        effects = responses.effects()
        return np.lexsort((-effects.max(1), effects.argmax(1)))
    return np.arange(len(responses.mean))


def _confusion(confusion: Confusion) -> dict[str, Any]:
    """Return the counts as the page shows them: those of images, and shares of their class."""
    counts = confusion.counts
    if not counts.size:
        return {"names": [], "text": confusion.note}
    totals = counts.sum(1, keepdims=True)
    names = [name or f"class {index}" for index, name in enumerate(confusion.names)]
    return {
        "shares": (counts / np.maximum(totals, 1)).astype(np.float32),
        "counts": counts,
        "names": names,
        "text": f"at batch {format_count(confusion.step)} · {format_count(int(totals.sum()))} "
        f"images · {100 * confusion.accuracy():.1f} % right",
    }


def _facts(lens: ClassLens) -> str:
    images = format_number(float(lens.counts.sum()))
    batches = "1 batch" if lens.batches == 1 else f"{format_count(lens.batches)} batches"
    return f"up to batch {format_count(lens.step)} · {batches} · {images} images (weighted)"
