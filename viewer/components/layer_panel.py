"""The layer panel: open pane, projection method, selected filters, findings and buttons."""

from __future__ import annotations

from typing import Any

import numpy as np
from msgspec.structs import asdict

from revacnn_lightning.protocol.messages import LayerInfo

from ..embedding.projection import Projection
from ..rendering.findings import collect_findings
from ..tab.tab_state import TabState
from ..tab.watched_layers import no_layers_reason
from .html_panel import HtmlDataPanel
from .selection_panel import NO_SELECTION

__all__ = ["LayerPanel"]

BUTTONS = ("freeze", "reinitialize", "merge")
COLORS = 3  # input channels: filters of images with as many are shown in color


class LayerPanel(HtmlDataPanel):
    """The state of the panel of the selected layer: its pane, its filters and its buttons."""

    part = "layer_panel"

    def __init__(self, tab: TabState) -> None:
        super().__init__(tab)
        # The findings are computed again only when these change.
        self._findings_key: tuple[Any, ...] = ()
        self._findings_layout: Projection | None = None
        self._found: list[dict[str, Any]] | None = None

    def content(self) -> dict[str, Any]:
        tab, layer, position = self.tab, self.tab.layer(None), self.tab.selected_position()
        content: dict[str, Any] = {
            "pane": tab.pane, "method": tab.method, "selected": [], "staged": [],
            "findings": None, "slices": "", "depth": None,
        }  # fmt: skip
        if layer is None or position is None:
            reason = no_layers_reason(tab) or NO_SELECTION
            return content | {"disabled": dict.fromkeys(BUTTONS, reason), "tooltips": {}}
        selected = tab.selected_ids()
        dead = _dead_ids(tab, layer, position[0])
        frozen = {layer.filter_ids[index] for index in layer.frozen_filters}
        return content | {
            "selected": selected,
            "staged": tab.staging.removed_ids(layer.name),
            "frozen": sorted(frozen),
            "dead": dead,
            "findings": self._findings(layer, position[0], dead),
            "knows_dead_filters": tab.state is not None and tab.state.knows_dead_filters,
            "slices": self._slices(layer),
            "depth": self._depth(layer),
            **_buttons(tab, layer, selected, is_frozen=frozen.issuperset(selected)),
        }

    def _findings(
        self, layer: LayerInfo, layer_index: int, dead: list[int]
    ) -> list[dict[str, Any]] | None:
        """Return the findings among the layer's filters; None before they are known."""
        tab, details = self.tab, self.tab.follower.layer_details
        known = details.get(layer.name)
        if known is None or known.detail is None or tab.state is None:
            return None
        layout = details.projections.get(layer.name, "coefficients", tab.method)
        key = (
            tab.state,
            tab.state.structure_revision,
            layer.name,
            known.detail_revision,
            tuple(dead),
        )
        if key != self._findings_key or layout is not self._findings_layout:
            ids = np.asarray(tab.state.layer_ids(layer_index), np.int64)
            found = [asdict(finding) for finding in collect_findings(known, layout, ids, dead)]
            self._findings_key, self._findings_layout = key, layout
            self._found = found if found or layout is not None else None
        return self._found

    def _slices(self, layer: LayerInfo) -> str:
        """Return which slices of the filters are shown; "" if there is no choice."""
        known = self.tab.follower.layer_details.get(layer.name)
        inputs, dimensions = layer.in_channels // layer.groups, len(layer.kernel_size)
        if known is None or inputs == 1 or dimensions == 0 or (inputs == COLORS and dimensions > 1):
            return ""
        return known.kernel_slice

    def _depth(self, layer: LayerInfo) -> float | None:
        """Return which slice of volumes is shown, 0 to 1; None if there is none."""
        tab, known = self.tab, self.tab.follower.layer_details.get(layer.name)
        has_slices = len(layer.kernel_size) == 3
        if tab.pane == "inspection" and tab.selection is not None:
            filter_id = tab.selection.filter_id
            has_slices |= tab.follower.inspections.has_volume_inputs(layer.name, filter_id)
        return known.depth if known is not None and has_slices else None


def _dead_ids(tab: TabState, layer: LayerInfo, layer_index: int) -> list[int]:
    """Return the ids of the layer's dead filters."""
    if tab.state is None:
        return []
    start, end = tab.state.offsets[layer_index : layer_index + 2]
    return [layer.filter_ids[i] for i in np.flatnonzero(tab.state.dead_mask()[start:end])]


def _buttons(
    tab: TabState, layer: LayerInfo, selected: list[int], *, is_frozen: bool
) -> dict[str, Any]:
    """Return the labels, tooltips and reasons to be disabled of the buttons."""
    refusal = tab.steering_refusal()
    too_few = "" if len(selected) > 1 else "Select two or more filters to merge them."
    return {
        "freeze_label": "Unfreeze" if is_frozen else "Freeze",
        "disabled": {
            "freeze": refusal,
            "reinitialize": refusal,
            "merge": tab.width_refusal(layer) or too_few,
        },
        "tooltips": {
            "freeze": "Stage unfreezing the selected filters, so that they are trained again"
            if is_frozen
            else "Stage freezing the selected filters while the rest is trained",
            "reinitialize": "Stage reinitializing the selected filters",
            "merge": "Stage merging the selected filters into one; outgoing weights are summed",
        },
    }
