"""The buttons that pause, save and stop the run, and the table of learning rates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from revacnn_lightning.protocol.messages import ParameterGroup

from ..rendering.formatting import format_count, format_number
from .html_panel import HtmlPanel

__all__ = ["ControlsPanel"]


class ControlsPanel(HtmlPanel):
    """The buttons in the header. ``groups`` lists the parameter groups of all optimizers."""

    part = "controls"

    def content(self) -> dict[str, Any]:
        health, state = self.tab.follower.health(), self.tab.state
        requested = self.tab.edit_queue.requested_hyperparameter
        status = None if state is None else state.status
        accepts_requests = not health.is_final and health.kind != "connecting"
        return {
            "available": status is not None and accepts_requests,
            "paused": health.kind == "paused",
            "refusal": self.tab.steering_refusal(),
            "recording": "" if status is None else status.recording,
            "groups": []
            if status is None
            else [_group(group, requested) for group in status.parameter_groups],
        }


def _group(
    group: ParameterGroup, requested: Callable[[int, int, str], float | None]
) -> dict[str, Any]:
    def requested_text(name: str) -> str:
        value = requested(group.optimizer, group.group, name)
        return "" if value is None else f"{value:g}"

    return {
        "optimizer": group.optimizer,
        "group": group.group,
        "title": f"{group.optimizer_type} · {format_count(group.parameter_count)} parameters",
        "values": [
            {
                "name": name,
                "label": label,
                "text": format_number(value),
                "requested": requested_text(name),
            }
            for name, label, value in (
                ("lr", "learning rate", group.learning_rate),
                ("weight_decay", "weight decay", group.weight_decay),
            )
            if value is not None
        ],
        "note": group.note,
    }
