"""The verdicts on all layers, what acting on them is worth first, each with its remedy."""

from __future__ import annotations

import time
from typing import Any

from revacnn_lightning.diagnostics.verdicts import Remedy, Verdict, VerdictKind
from revacnn_lightning.protocol.messages import Structure

from .html_panel import HtmlPanel

__all__ = ["VerdictPanel"]

MAX_ROWS = 6
REFRESH_SECONDS = 2.0  # a verdict rests on 50 batches

WORDS: dict[VerdictKind, str] = {
    "dead": "dead", "dormant": "dormant", "untrained": "not trained yet", "restless": "restless",
    "converged": "converged", "vanishing": "vanishing gradient", "exploding": "exploding gradient",
    "nonfinite": "NaN or infinite",
}  # fmt: skip
REMEDIES: dict[Remedy, str] = {"remove": "Remove", "restart": "Restart", "freeze": "Freeze"}
ADVICE: dict[Remedy, str] = {
    "remove": "Remove them, at no cost while they stay silent, or reinitialize them.",
    "restart": "Reinitialize them, with outgoing weights of zero.",
    "freeze": "Freeze the layer: its steps have become negligible.",
    "lower_rate": "Lower the learning rate.",
    "undo": "Undo the last edit, or return to an earlier checkpoint; lower the rate.",
    "": "",
}


class VerdictPanel(HtmlPanel):
    """Lists the verdicts that are known."""

    part = "verdicts"

    def content(self) -> dict[str, Any]:
        state, structure = self.tab.state, self.tab.structure
        if state is None or structure is None:
            return {"rows": []}
        now, shown = time.monotonic(), self.source.data
        key = (state.connection.run, structure.version, self.tab.steering_refusal())
        if shown and key == self._key and now < self._due_at:
            return shown
        self._key, self._due_at = key, now + REFRESH_SECONDS
        known = [one for one in state.verdicts() if one.is_known]
        rows = [_row(one, structure, key[2]) for one in known if one.kind != "untrained"]
        return {"rows": [row for row in rows if row is not None][:MAX_ROWS]}

    _key: tuple[str, int, str] = ("", -1, "")
    _due_at = 0.0


def _row(verdict: Verdict, structure: Structure, refusal: str) -> dict[str, Any] | None:
    """Return the row of a verdict; None if its layer is not in the network."""
    layers = [layer for layer in structure.layers if layer.name == verdict.layer]
    if not layers:
        return None
    (layer,) = layers
    count = f"{len(verdict.filters)} " if verdict.filters else ""
    ids = [layer.filter_ids[i] for i in verdict.filters if i < len(layer.filter_ids)]
    label = REMEDIES.get(verdict.remedy, "")
    if verdict.remedy == "remove" and layer.edit_refusal:
        label = ""
    return {
        "kind": verdict.kind,
        "layer": structure.layers.index(layer),
        "text": f"{verdict.layer}: {count}{WORDS[verdict.kind]}",
        "note": " ".join(filter(None, [f"{verdict.evidence}.", ADVICE[verdict.remedy]])),
        "ids": ids,
        "remedy": verdict.remedy if label else "",
        "label": label,
        "refusal": refusal,
    }
