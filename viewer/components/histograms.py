"""Histograms of the weights and gradients of the selected layer, one ridge per batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.core.properties import without_property_validation

from ..rendering.formatting import format_count, format_number
from ..rendering.frame_codec import PagePartContent
from ..rendering.palette import Palette
from ..runs.histogram_history import HistogramHistory
from ..tab.tab_state import TabState

__all__ = ["HistogramsOverTimePane"]

WAITING = "Waiting for the training to send this layer"
NOT_RECORDED = "This layer was not opened before the run ended."
NO_GRADIENT = (
    "This layer has no gradient: it is frozen, or no batch was trained since it was opened."
)
PEAK_QUANTILE = 0.95  # of the highest shares: a few sharper peaks are cut off


class HistogramsOverTimePane:
    """The histograms of the selected layer over time, requested only while the pane is open."""

    def __init__(self, tab: TabState) -> None:
        self.tab = tab
        self.root = self.source = PagePartContent("histograms")
        self._shown_key: tuple[Any, ...] = ()

    def restyle(self, palette: Palette) -> None:
        """Do nothing: the page draws the ridges in the colors of its style sheet."""

    @without_property_validation
    def update(self) -> bool:
        tab = self.tab
        if tab.pane != "histograms" or tab.selection is None or tab.selected_position() is None:
            return False
        layer = tab.follower.layer_details.mark_needed(tab.selection.layer)
        histograms, ended = layer.histograms, tab.ended_reason()
        status = layer.refused or (NOT_RECORDED if ended else WAITING)
        key = (tab.state, tab.selection.layer, histograms, histograms.revision, status)
        if key == self._shown_key:
            return False
        self._shown_key = key
        status = "" if histograms.weights.steps else status
        self.root.data = {
            "layer": tab.selection.layer,
            "status": status,
            "weights": _ridges(histograms.weights, ""),
            "gradients": _ridges(histograms.gradients, "" if status else NO_GRADIENT),
        }
        return True


def _ridges(history: HistogramHistory, note: str) -> dict[str, Any]:
    """Return what the page draws, and in words what it shows."""
    if not history.steps:
        return {"steps": np.zeros(0), "note": note, "facts": "", "limit": 0.0}
    shares = history.bin_shares()
    peak = max(float(np.quantile(shares.max(axis=1), PEAK_QUANTILE)), 1e-9)
    return {
        "steps": np.asarray(history.steps, np.float64),
        "shares": shares.astype(np.float32),
        "peak": peak,
        "limit": history.axis_limit,
        "axis": format_number(history.axis_limit),
        "facts": _facts(history),
        "note": "",
    }


def _facts(history: HistogramHistory) -> str:
    newest = history.histograms[-1]
    n_bins, total = len(newest.counts), max(float(newest.counts.sum()), 1.0)
    centers = newest.limit * ((np.arange(n_bins) + 0.5) * 2 / n_bins - 1)
    mean = float((newest.counts * centers).sum()) / total
    deviation = float(np.sqrt((newest.counts * (centers - mean) ** 2).sum() / total))
    first, last = (format_count(step) for step in (history.steps[0], history.steps[-1]))
    facts = [f"batch {last}" if first == last else f"batches {first} to {last}"]
    facts.append(f"standard deviation {format_number(deviation)}")
    if newest.nonfinite:
        facts.append(f"{format_count(newest.nonfinite)} not finite")
    return " · ".join(facts)
