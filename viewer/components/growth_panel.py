"""Where one more filter would lower the loss most: heat on the layers, and a button to add it."""

from __future__ import annotations

import math
from typing import Any

from revacnn_lightning.protocol.growth import GrowthGains
from revacnn_lightning.protocol.messages import Structure

from ..rendering.formatting import count_of, format_number
from ..tab.layer_widths import verdicts_on_wide_layers
from ..tab.tab_state import TabState
from .html_panel import HtmlDataPanel

__all__ = ["GrowthGainPanel"]

SOURCE = "GradMax, Evci et al. 2022"
SPARE = (
    "The gain is of a filter that the layer lacks. By their prices, it has more filters than it "
    "needs: reinitialize some of these rather than add one"
)


class GrowthGainPanel(HtmlDataPanel):
    """How much one more filter in each layer would lower the loss, as last requested."""

    part = "growth"

    def content(self) -> dict[str, Any]:
        tab = self.tab
        requests, structure = tab.follower.growth, tab.structure
        if not tab.shows_prices or structure is None:
            return {"rows": [], "text": "", "pending": False}
        rows = [] if requests.newest is None else _rows(tab, requests.newest, structure)
        text = requests.refused
        if requests.is_pending:
            text = tab.waiting_reason("waiting for a batch")
        elif requests.newest is not None and not text:
            notes = [note for note in requests.newest.notes if note]
            text = _describe(requests.newest) if rows else next(iter(notes), "no layer has a gain")
        return {"rows": rows, "text": text, "pending": requests.is_pending}


def _rows(tab: TabState, gains: GrowthGains, structure: Structure) -> list[dict[str, Any]]:
    """Return the layers with a known gain, largest first; those that are too wide come last.

    ``heat`` is relative to the largest gain.
    """
    wide = verdicts_on_wide_layers(tab, structure)
    known = [
        (structure.layers[index].name not in wide, float(gain), index)
        for index, gain in enumerate(gains.gains)
        if math.isfinite(gain) and not structure.layers[index].edit_refusal
    ]
    known.sort(reverse=True)
    largest = max((gain for _, gain, _ in known), default=0.0)
    rows = []
    for is_first, gain, index in known:
        name = structure.layers[index].name
        spare = "" if is_first else f", {count_of(len(wide[name].filters), 'filter')} to spare"
        title = (
            f"Growth gain {format_number(gain)}: the gradient of the outgoing weights that a new "
            f"filter of this layer could have ({SOURCE})"
        )
        if not is_first:
            title += f". {SPARE}"
        heat = gain / largest if largest > 0 else 0.0
        text = f"{name} {format_number(gain)}{spare}"
        rows.append({"layer": index, "text": text, "title": title, "heat": heat})
    return rows


def _describe(gains: GrowthGains) -> str:
    return f"at batch {gains.step}, on {gains.images} images ({SOURCE})"
