"""A part of the page that is plain HTML; the page draws it from ``source.data``."""

from __future__ import annotations

from typing import Any

from ..frames import Panel
from ..palette import Palette
from ..tab import Tab

__all__ = ["HtmlPart"]


class HtmlPart:
    """Base of the HTML parts: sends ``content()`` whenever it has changed."""

    part = ""

    def __init__(self, tab: Tab) -> None:
        self.tab = tab
        self.root = self.source = Panel(self.part)

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
