"""Base of the components that the page renders as HTML from ``source.data``."""

from __future__ import annotations

from typing import Any

from ..rendering.frame_codec import PagePartContent
from ..rendering.palette import Palette
from ..tab.tab_state import TabState

__all__ = ["HtmlDataPanel"]


class HtmlDataPanel:
    """Base class: sends the result of ``content()`` to the page whenever it has changed.

    The class attribute ``part`` names the part of the page that receives it.
    """

    part = ""

    def __init__(self, tab: TabState) -> None:
        self.tab = tab
        self.root = self.source = PagePartContent(self.part)

    def content(self) -> dict[str, Any]:
        """Return the data to show."""
        raise NotImplementedError

    def update(self) -> bool:
        content = self.content()
        if content == self.source.data:
            return False
        self.source.data = content
        return True

    def restyle(self, palette: Palette) -> None:
        """Do nothing: HTML takes its colors from the style sheet."""
