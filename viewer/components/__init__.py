"""The components of the page, one module per part of the page."""

from __future__ import annotations

from typing import Any, Protocol

from bokeh.model import Model

from ..rendering.palette import Palette

__all__ = ["Component"]


class Component(Protocol):
    """One part of the page."""

    @property
    def root(self) -> Model:
        """The model or frame part that goes into the document."""
        ...

    @property
    def source(self) -> Any:
        """Holds the shown data in ``source.data``."""
        ...

    def update(self) -> bool:
        """Show new data. Return immediately with False if nothing is new or visible."""
        ...

    def restyle(self, palette: Palette) -> None:
        """Apply the colors of another theme."""
        ...
