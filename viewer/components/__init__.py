"""The parts of the page.

Each has a ``root`` (what goes into the document), a ``source`` (whose ``data`` is what it shows),
and ``update()``, which returns at once when there is nothing new, and whether there was.
"""

from __future__ import annotations

from typing import Any, Protocol

from bokeh.model import Model

from ..rendering.palette import Palette

__all__ = ["Component"]


class Component(Protocol):
    """One part of the page."""

    @property
    def root(self) -> Model: ...

    @property
    def source(self) -> Any: ...

    def update(self) -> bool:
        """Show what is new; True if anything was."""
        ...

    def restyle(self, palette: Palette) -> None:
        """Take on the colours of another theme."""
        ...
