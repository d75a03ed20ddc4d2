"""The verdicts on all layers, those of the opened one first, each with its remedies."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from revacnn_lightning.diagnostics.verdicts import Remedy, Verdict, VerdictKind
from revacnn_lightning.protocol.messages import GradientClipping, LayerInfo, Structure

from ..rendering.formatting import format_number
from ..tab.layer_widths import growth_gains, verdicts_on_narrow_layers, verdicts_on_wide_layers
from ..tab.tab_state import TabState
from .html_panel import HtmlDataPanel

__all__ = ["EstablishedVerdictsPanel"]

MAX_ROWS = 100  # the page shows a few of them, and the others on demand
REFRESH_SECONDS = 2.0  # of what follows from prices

WORDS: dict[VerdictKind, str] = {
    "dead": "dead", "dormant": "dormant", "untrained": "not trained yet", "restless": "restless",
    "converged": "converged", "vanishing": "vanishing gradient", "exploding": "exploding gradient",
    "nonfinite": "NaN or infinite", "provably_dead": "dead for good", "twins": "twins",
    "degenerate": "clustered", "too_wide": "more than it needs",
    "too_narrow": "too narrow",
}  # fmt: skip
REMEDIES: dict[Remedy, str] = {
    "remove": "Remove", "merge": "Merge", "reinitialize": "Reinitialize", "freeze": "Freeze",
    "add": "Add", "split": "Split the busiest", "lower_rate": "Lower the rate",
    "clip_gradient": "Clip the gradient", "undo": "Undo the last edit",
}  # fmt: skip
RESIZING: tuple[Remedy, ...] = ("remove", "merge", "add", "split")
STAGED = "Stage it; nothing happens before Apply."
REMOVAL_ADVICE: dict[VerdictKind, str] = {
    "dead": "Remove them, at no cost while they stay silent, or reinitialize them.",
    "provably_dead": "Remove them: the network computes the same without them. Or reinitialize "
    "them.",
    "too_wide": "Remove them; the plan measures what all of them cost together.",
}
# Of a layer that is too wide, whose growth gain is known.
SPARE = (
    "That is of the filters it has. One in another direction has a growth gain of {gain}: "
    "reinitialize some of these rather than add one"
)
EXPLODING = (
    "Lower the learning rate of the layer, or clip the gradient. Undo the last edit if it began "
    "with that."
)
ALREADY = (
    "The training clips the gradient already ({clipping}); the learning rates of the header set "
    "another value. What is recorded here is the gradient before it is clipped."
)
ADVICE: dict[Remedy, str] = {
    "remove": "Remove them.",
    "merge": "Merge them into the strongest one.",
    "reinitialize": "Reinitialize them, with outgoing weights of zero.",
    "freeze": "Freeze the layer: its steps have become negligible.",
    "add": "Add a filter there, in the direction that lowers the loss fastest.",
    "split": "Split the most active filter into two that share its output, and train apart.",
    "lower_rate": "Train the layer at a tenth of its present learning rate.",
    "clip_gradient": "Scale gradients with a larger norm down to {norm:g}: {source}.",
    "undo": "Undo the last edit, or return to an earlier checkpoint; lower the rate.",
    "": "",
}


class EstablishedVerdictsPanel(HtmlDataPanel):
    """Lists the verdicts that are known."""

    part = "verdicts"

    def __init__(self, tab: TabState) -> None:
        super().__init__(tab)
        # What the shown rows depend on.
        self._key: tuple[str, int, str, int, str, GradientClipping | None]
        self._key = ("", -1, "", -1, "", None)
        self._due_at = 0.0

    def content(self) -> dict[str, Any]:
        state, structure = self.tab.state, self.tab.structure
        if state is None or structure is None:
            return {"rows": [], "total": 0, "badges": [], "problem": ""}
        now, shown = time.monotonic(), self.source.data
        verdicts = self.tab.follower.verdicts
        opened = self.tab.layer(None)
        key = (
            state.connection.run, structure.version, self.tab.steering_refusal(), verdicts.revision,
            "" if opened is None else opened.name,
            None if state.status is None else state.status.gradient_clipping,
        )  # fmt: skip
        if shown and key == self._key and now < self._due_at:
            return shown
        self._key, self._due_at = key, now + REFRESH_SECONDS
        verdicts.keep_computing()
        found = [*verdicts.verdicts_for_version(structure.version), *self._widths(structure)]
        known = [one for one in found if one.is_known and one.kind != "untrained"]
        known.sort(key=lambda one: -one.worth)
        own_first = sorted(known, key=lambda one: one.layer != key[4])
        rows = [_row(one, structure, key[2], key[5]) for one in own_first]
        shown_rows = [row for row in rows if row is not None]
        return {
            "rows": shown_rows[:MAX_ROWS],
            "total": len(shown_rows),
            "badges": _badges(known, structure),
            "problem": verdicts.problem,
        }

    def _widths(self, structure: Structure) -> list[Verdict]:
        """Return which layers are too wide or too narrow, while the tab shows prices."""
        wide = verdicts_on_wide_layers(self.tab, structure)
        gains = growth_gains(self.tab, structure)
        for layer, gain in zip(structure.layers, gains, strict=True):
            if layer.name in wide and math.isfinite(gain):
                verdict = wide[layer.name]
                evidence = f"{verdict.evidence}. {SPARE.format(gain=format_number(float(gain)))}"
                wide[layer.name] = replace(verdict, evidence=evidence)
        return [*wide.values(), *verdicts_on_narrow_layers(self.tab, structure).values()]


def _badges(verdicts: Sequence[Verdict], structure: Structure) -> list[dict[str, Any]]:
    """Return what the headers of the layers say: the verdict that is worth most, and all texts."""
    badges = []
    for index, layer in enumerate(structure.layers):
        own = [one for one in verdicts if one.layer == layer.name]
        if own:
            text = ", ".join(_words(one) for one in own)
            badges.append({"layer": index, "kind": own[0].kind, "text": text})
    return badges


def _words(verdict: Verdict) -> str:
    count = f"{len(verdict.filters)} " if verdict.filters and verdict.kind != "degenerate" else ""
    return f"{count}{WORDS[verdict.kind]}"


def _row(
    verdict: Verdict, structure: Structure, refusal: str, clipping: GradientClipping | None
) -> dict[str, Any] | None:
    """Return the row of a verdict; None if its layer is not in the network."""
    layers = [layer for layer in structure.layers if layer.name == verdict.layer]
    if not layers:
        return None
    (layer,) = layers
    return {
        "kind": verdict.kind,
        "layer": structure.layers.index(layer),
        "text": f"{verdict.layer}: {_words(verdict)}",
        "note": " ".join(filter(None, [f"{verdict.evidence}.", _advice(verdict)])),
        "ids": _ids(layer, verdict.filters),
        "remedies": [
            _remedy(verdict, layer, one, clipping)
            for one in (verdict.remedy, *verdict.alternatives)
            if one in REMEDIES
            and not (one in RESIZING and layer.edit_refusal)
            and not (one == "undo" and not structure.undoable)
            and not (one == "clip_gradient" and clipping is None)  # the run cannot do it
        ],
        "refusal": refusal,
    }


def _advice(verdict: Verdict) -> str:
    if verdict.kind == "exploding":
        return EXPLODING
    if verdict.remedy == "remove":
        return REMOVAL_ADVICE.get(verdict.kind, ADVICE["remove"])
    return ADVICE[verdict.remedy]


def _remedy(
    verdict: Verdict, layer: LayerInfo, remedy: Remedy, clipping: GradientClipping | None
) -> dict[str, Any]:
    """Return a button: what it stages, for which filters, and what it says of that."""
    filters = verdict.busiest if remedy == "split" else verdict.filters
    note = "Immediately." if remedy == "undo" else STAGED
    if remedy in verdict.alternatives:
        advice = ADVICE[remedy].format(norm=verdict.clip_norm, source=verdict.clip_note)
        note = f"{advice} {note}"
    return {
        "option": remedy,
        "label": REMEDIES[remedy],
        "ids": _ids(layer, filters),
        "note": f"{note} {verdict.evidence}.",
        "value": verdict.clip_norm if remedy == "clip_gradient" else 0.0,
        "refusal": _why_no_clipping(verdict, clipping) if remedy == "clip_gradient" else "",
    }


def _why_no_clipping(verdict: Verdict, clipping: GradientClipping | None) -> str:
    if clipping is None or clipping.refusal:
        return "" if clipping is None else f"Not possible: {clipping.refusal}."
    is_clipped = clipping.algorithm == "norm" and 0 < (clipping.value or 0.0) <= verdict.clip_norm
    return ALREADY.format(clipping=clipping.describe()) if is_clipped else ""


def _ids(layer: LayerInfo, filters: Sequence[int]) -> list[int]:
    return [layer.filter_ids[i] for i in filters if i < len(layer.filter_ids)]
