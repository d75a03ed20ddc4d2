"""The selected layer and filter in words and numbers."""

from __future__ import annotations

from typing import Any

from revacnn_lightning.protocol.messages import Layer

from ..rendering.formatting import format_count, format_number, format_scientific
from ..tab.tab_state import TabState
from .html_panel import HtmlPanel

__all__ = ["SelectionPanel"]

# Statistics in the order and words in which they are shown; others follow under their own names.
WORDS = {
    "gradient": "mean |∇|",
    "activation": "Σ act",
    "weight_norm": "norm",
    "update_ratio": "update",
}
SHOWN_VALUES = 4


class SelectionPanel(HtmlPanel):
    part = "inspector"

    def content(self) -> dict[str, Any]:
        state, structure, here = self.tab.state, self.tab.structure, self.tab.selected()
        if state is None or structure is None or here is None:
            return _nothing(self.tab.sort_by)
        at, index = here
        layer = structure.layers[at]
        id_ = layer.filter_ids[index]
        why = self.tab.refused(layer)
        alone = "The last filter of a layer cannot be removed" if len(layer.filter_ids) == 1 else ""
        staged = id_ in self.tab.staging.removed_ids(layer.name)
        return {
            "layer": layer.name,
            "facts": _facts(layer),
            "about": _about(layer),
            "filter": _which(index, len(self.tab.picked())) + (" · staged" if staged else ""),
            "values": _values(self.tab, at, index),
            "sort": self.tab.sort_by,
            "refused": {"add": why, "split": why, "remove": why or alone},
            "words": {
                "add": f"Stage one more filter for {layer.name}  (+)",
                "split": f"Stage a split of filter {index} into two that share its output  (s)",
                "remove": f"Stage the removal of filter {index}, or take it back  (Delete)",
            },
        }


def _which(index: int, n_picked: int) -> str:
    """``filter 3``, or ``filter 3 and 4 more``."""
    return f"filter {index}" + (f" and {n_picked - 1} more" if n_picked > 1 else "")


def _facts(layer: Layer) -> str:
    kernel = "×".join(map(str, layer.kernel_size))
    facts = [
        f"{format_count(layer.out_channels)} filters",
        f"{layer.in_channels}→{layer.out_channels}",
        kernel,
    ]
    if max(layer.stride) > 1:
        facts.append("stride " + "×".join(map(str, dict.fromkeys(layer.stride))))
    if layer.groups > 1:
        facts.append(f"{layer.groups} groups")
    if layer.module_type != "Conv2d":
        facts.append(layer.module_type)
    if layer.frozen_filters:
        facts.append(f"{len(layer.frozen_filters)} frozen")
    return " · ".join(facts)


def _about(layer: Layer) -> str:
    """What the numbers of this layer are made of."""
    if not layer.observed:
        return "No statistics reach us from this layer: it runs inside a compiled region."
    what = (
        f"{layer.activation_source}'s output"
        if layer.activation_source
        else "absolute output of the conv"
    )
    return (
        f"Σ activation: sum of {what} over the pixels, mean over the batch. "
        "mean |∇|: mean absolute gradient over the filter's coefficients."
    )


def _values(tab: TabState, layer: int, index: int) -> list[dict[str, Any]]:
    shown = tab.values()
    names = sorted(shown, key=lambda name: (list(WORDS).index(name) if name in WORDS else 99, name))
    values = []
    for name in names[:SHOWN_VALUES]:
        number = float(tab.layer_values(name, layer)[index])
        text = format_scientific(number) if name == "gradient" else format_number(number)
        label = WORDS.get(name, name.replace("_", " "))
        values.append({"label": label, "value": text, "tone": name, "title": ""})
    return values


def _nothing(sort_by: str) -> dict[str, Any]:
    why = "Nothing is selected"
    return {
        "layer": "",
        "facts": "",
        "about": "",
        "filter": "",
        "values": [],
        "sort": sort_by,
        "refused": {"add": why, "split": why, "remove": why},
        "words": {"add": "", "split": "", "remove": ""},
    }
