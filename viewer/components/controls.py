"""What a person may do to the run itself: hold it, save it, end it, set its learning rates."""

from __future__ import annotations

from typing import Any

from revacnn_lightning.protocol.messages import ParameterGroup

from ..rendering.formatting import format_count, format_number
from .html_panel import HtmlPanel

__all__ = ["ControlsPanel"]


class ControlsPanel(HtmlPanel):
    """The buttons in the page's head. ``groups`` has the values in force, of each optimizer."""

    part = "controls"

    def content(self) -> dict[str, Any]:
        health, state = self.tab.follower.health(), self.tab.state
        known = state is not None and state.status is not None
        groups = (
            state.status.parameter_groups if state is not None and state.status is not None else []
        )
        return {
            "available": known and not health.ended and health.kind != "connecting",
            "paused": health.kind == "paused",
            "groups": [_group(group) for group in groups],
        }


def _group(group: ParameterGroup) -> dict[str, Any]:
    return {
        "optimizer": group.optimizer,
        "group": group.group,
        "title": f"{group.optimizer_type} · {format_count(group.parameter_count)} parameters",
        "values": [
            {"name": name, "label": label, "value": value, "text": format_number(value)}
            for name, label, value in (
                ("lr", "learning rate", group.learning_rate),
                ("weight_decay", "weight decay", group.weight_decay),
            )
            if value is not None
        ],
    }
