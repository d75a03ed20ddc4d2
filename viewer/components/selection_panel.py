"""The selected layer and filter: facts, statistics and buttons."""

from __future__ import annotations

from typing import Any

from revacnn_lightning.protocol.messages import LayerInfo

from ..rendering.formatting import (
    count_of,
    format_number,
    format_scientific,
    format_selected_filters,
)
from ..tab.tab_state import TabState
from ..tab.watched_layers import no_layers_reason
from .html_panel import HtmlDataPanel

__all__ = ["NO_SELECTION", "SelectionPanel"]

# Statistics in display order. Other statistics come after these, under their own names.
LABELS = {
    "gradient": "mean |∇|",
    "activation": "Σ act",
    "weight_norm": "norm",
    "update_ratio": "update",
}
MAX_VALUES = 4
NO_SELECTION = "No filter is selected."
LAST_FILTER = "The last filter of a layer cannot be removed."


class SelectionPanel(HtmlDataPanel):
    """Facts and statistics of the selected layer and filter, and buttons to edit them."""

    part = "selection_panel"

    def content(self) -> dict[str, Any]:
        tab, layer, position = self.tab, self.tab.layer(None), self.tab.selected_position()
        if layer is None or position is None:
            return _empty(tab.sort_by, no_layers_reason(tab) or NO_SELECTION)
        layer_index, index = position
        refusal = tab.width_refusal(layer)
        is_staged = layer.filter_ids[index] in tab.staging.removed_ids(layer.name)
        selected = format_selected_filters(index, len(tab.selected_ids()))
        return {
            "layer": layer.name,
            "facts": _facts(layer),
            "statistics_note": _statistics_note(layer),
            "filter": selected + (" · staged" if is_staged else ""),
            "values": _values(tab, layer_index, index),
            "sort": tab.sort_by,
            "disabled": {
                "add": refusal,
                "split": refusal,
                "remove": refusal or (LAST_FILTER if len(layer.filter_ids) == 1 else ""),
            },
            "tooltips": {
                "add": f"Stage a new filter for {layer.name}  (+)",
                "split": f"Stage splitting filter {index} into two that share its output  (s)",
                "remove": f"Stage or discard the removal of filter {index}  (Delete)",
            },
        }


def _facts(layer: LayerInfo) -> str:
    """Return for example ``8 filters · 3→8 · 3×3``."""
    facts = [
        count_of(layer.out_channels, "filter"),
        f"{layer.in_channels}→{layer.out_channels}",
    ]
    if layer.kernel_size:
        facts.append("×".join(map(str, layer.kernel_size)))
    if max(layer.stride, default=1) > 1:
        facts.append("stride " + "×".join(map(str, dict.fromkeys(layer.stride))))
    if layer.groups > 1:
        facts.append(f"{layer.groups} groups")
    if layer.module_type != "Conv2d":
        facts.append(layer.module_type)
    if layer.frozen_filters:
        facts.append(f"{len(layer.frozen_filters)} frozen")
    if layer.learning_rate_factor != 1:
        facts.append(f"{layer.learning_rate_factor:g} × the learning rate")
    return " · ".join(facts)


def _statistics_note(layer: LayerInfo) -> str:
    """Explain how the statistics of this layer are computed."""
    if not layer.observed:
        return (
            "No activation: this layer runs in a compiled region, where hooks are not called, or "
            "within an attention."
        )
    output = (
        f"{layer.activation_source}'s output"
        if layer.activation_source
        else "absolute output of the layer"
    )
    places = "pixels" if len(layer.kernel_size) == 2 else "positions"
    return (
        f"Σ activation: sum of {output} over the {places}, mean over the batch. "
        "mean |∇|: mean absolute gradient over the filter's coefficients."
    )


def _values(tab: TabState, layer: int, index: int) -> list[dict[str, Any]]:
    """Return the first statistics of the filter as label and text."""
    order, title = list(LABELS), ""
    if tab.state is not None and tab.playback.shows_layer_means(tab.state):
        title = "Mean of the layer: single filters were not recorded then"
    names = sorted(
        tab.values(), key=lambda name: (order.index(name) if name in LABELS else len(order), name)
    )
    values = []
    for name in names[:MAX_VALUES]:
        number = float(tab.layer_values(name, layer)[index])
        text = format_scientific(number) if name == "gradient" else format_number(number)
        label = LABELS.get(name, name.replace("_", " "))
        values.append({"label": label, "value": text, "statistic": name, "title": title})
    return values


def _empty(sort_by: str, reason: str) -> dict[str, Any]:
    buttons = ("add", "split", "remove")
    return {
        "layer": "",
        "facts": "",
        "statistics_note": "",
        "filter": "",
        "values": [],
        "sort": sort_by,
        "disabled": dict.fromkeys(buttons, reason),
        "tooltips": dict.fromkeys(buttons, ""),
    }
