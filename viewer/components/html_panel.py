"""A part of the page that is plain HTML; the page draws it from ``source.data``."""

from __future__ import annotations

from typing import Any

from ..rendering.frame_codec import FramePart
from ..rendering.palette import Palette
from ..tab.tab_state import TabState

__all__ = ["HtmlPanel"]


class HtmlPanel:
    """Base of the HTML parts: sends ``content()`` whenever it has changed."""

    part = ""

    def __init__(self, tab: TabState) -> None:
        self.tab = tab
        self.root = self.source = FramePart(self.part)

    def content(self) -> dict[str, Any]:
        """What is to be shown now."""
        raise NotImplementedError

    def update(self) -> bool:
        content = self.content()
        if content == self.source.data:
            return False
        self.source.data = content
        return True

    def restyle(self, palette: Palette) -> None:
        """Nothing to do: HTML takes its colours from the style sheet."""
