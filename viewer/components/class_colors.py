"""The switch that colors the nodes by how much they answer to a class."""

from __future__ import annotations

from typing import Any

from revacnn_lightning.protocol.requests import InspectClass

from ..rendering.formatting import format_number
from .html_panel import HtmlDataPanel

__all__ = ["ColorByClassPanel"]

WAITING = "waiting for the next batches"
MAX_OPTIONS = 1000


class ColorByClassPanel(HtmlDataPanel):
    """The switch that colors the nodes by how much each filter responds to a class.

    It requests the responses to the class while that is shown.
    """

    part = "class_colors"

    def content(self) -> dict[str, Any]:
        tab = self.tab
        requests, chosen = tab.follower.classes, tab.class_view.shown
        if chosen is None or tab.structure is None:
            return {"shown": False, "chosen": -1, "classes": [], "text": ""}
        answers = requests.request_newest_of_class(chosen)
        text = requests.refusal(InspectClass(chosen)) or tab.waiting_reason(WAITING)
        if answers is not None:
            text = answers.note or (
                f"{format_number(answers.images)} images (weighted)"
                if answers.images
                else "no image of it so far"
            )
        count = min(MAX_OPTIONS, max(requests.count, chosen + 1))
        names = [*requests.names[:count], *[""] * (count - len(requests.names))]
        return {
            "shown": True,
            "chosen": chosen,
            "classes": [name or f"class {index}" for index, name in enumerate(names)],
            "text": text,
        }
