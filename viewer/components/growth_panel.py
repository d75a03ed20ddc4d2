"""Where one more filter would lower the loss most: heat on the layers, and a button to add it."""

from __future__ import annotations

import math
from typing import Any

from revacnn_lightning.protocol.growth import GrowthGains
from revacnn_lightning.protocol.messages import Structure

from ..rendering.formatting import format_number
from .html_panel import HtmlPanel

__all__ = ["GrowthPanel"]

SOURCE = "GradMax, Evci et al. 2022"


class GrowthPanel(HtmlPanel):
    """Shows the gains that were requested last, beside the prices."""

    part = "growth"

    def content(self) -> dict[str, Any]:
        tab = self.tab
        requests, structure = tab.follower.growth, tab.structure
        if not tab.shows_prices or structure is None:
            return {"rows": [], "text": "", "pending": False}
        rows = [] if requests.newest is None else _rows(requests.newest, structure)
        text = requests.refused
        if requests.is_pending:
            text = "waiting for a batch"
        elif requests.newest is not None:
            notes = [note for note in requests.newest.notes if note]
            text = _describe(requests.newest) if rows else next(iter(notes), "no layer has a gain")
        return {"rows": rows, "text": text, "pending": requests.is_pending}


def _rows(gains: GrowthGains, structure: Structure) -> list[dict[str, Any]]:
    """Return the layers with a known gain, largest first; ``heat`` is relative to the largest."""
    known = [
        (float(gain), index)
        for index, gain in enumerate(gains.gains)
        if math.isfinite(gain) and not structure.layers[index].edit_refusal
    ]
    known.sort(reverse=True)
    largest = known[0][0] if known else 0.0
    return [
        {
            "layer": index,
            "text": f"{structure.layers[index].name} {format_number(gain)}",
            "title": f"Growth gain {format_number(gain)}: the gradient of the outgoing weights "
            f"that a new filter of this layer could have ({SOURCE})",
            "heat": gain / largest if largest > 0 else 0.0,
        }
        for gain, index in known
    ]


def _describe(gains: GrowthGains) -> str:
    return f"at batch {gains.step}, on {gains.images} images ({SOURCE})"
