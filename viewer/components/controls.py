"""The buttons that pause, save and stop the run, and the panel of learning rates and clipping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from revacnn_lightning.protocol.gradient_clipping import describe_clipping
from revacnn_lightning.protocol.messages import GradientClipping, ParameterGroup
from revacnn_lightning.protocol.requests import SetGradientClipping

from ..rendering.formatting import format_count, format_number
from .html_panel import HtmlDataPanel

__all__ = ["ControlsPanel"]


class ControlsPanel(HtmlDataPanel):
    """The buttons in the header. ``groups`` lists the parameter groups of all optimizers."""

    part = "controls"

    def content(self) -> dict[str, Any]:
        run_status, state = self.tab.follower.run_status(), self.tab.state
        requested = self.tab.edit_queue.requested_hyperparameter
        status = None if state is None else state.status
        accepts_requests = not run_status.is_final and run_status.kind != "connecting"
        return {
            "available": status is not None and accepts_requests,
            "paused": run_status.kind == "paused",
            "refusal": self.tab.steering_refusal(),
            "recording": "" if status is None else status.recording,
            "groups": []
            if status is None
            else [_group(group, requested) for group in status.parameter_groups],
            "clipping": None
            if status is None or status.gradient_clipping is None
            else _clipping(status.gradient_clipping, self.tab.edit_queue.requested_clipping()),
        }


def _clipping(present: GradientClipping, requested: SetGradientClipping | None) -> dict[str, Any]:
    to_be = None if requested is None else describe_clipping(requested.value, requested.algorithm)
    return {
        "text": present.describe(),
        "algorithm": present.algorithm,
        "requested": to_be or "",
        "note": present.note,
        "refusal": present.refusal,
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
